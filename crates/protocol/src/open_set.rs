//! Sets of numbers that later versions may extend: an unknown number stays a number.

/// Defines a set that travels as `u16`; what this build has no name for is shown as a number.
macro_rules! open_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $number:literal $word:literal,)* }) => {
        crate::codec::wire! {
            $(#[$doc])*
            #[derive(Copy, Eq, Hash, PartialOrd, Ord)]
            pub struct $name(
                /// The number on the wire.
                pub u16,
            );
        }

        impl $name {
            $($(#[$item_doc])* pub const $item: Self = Self($number);)*

            /// Every member that this build knows, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$item),*];

            /// Returns the member's word, or `None` for a number from a newer build.
            #[must_use]
            pub const fn word(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($word),)*
                    _ => None,
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.word() {
                    Some(word) => f.pad(word),
                    None => core::fmt::Display::fmt(&self.0, f),
                }
            }
        }
    };
}

pub(crate) use open_set;

#[cfg(test)]
mod tests {
    use crate::ErrorCode;

    #[test]
    fn unknown_number_is_shown_as_a_number() {
        assert_eq!(ErrorCode::LOCKED.to_string(), "locked");
        assert_eq!(ErrorCode(4711).to_string(), "4711");
        assert_eq!(format!("{:>8}|{:<5}|", ErrorCode::LOCKED, ErrorCode(4711)), "  locked|4711 |");
    }
}
