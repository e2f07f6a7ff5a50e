/* The least that a client can do: connect, write hello and a token request at once, read two frames, print
 * the token. The floor that the real client is measured against; the frames are made by the benchmark. */
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const unsigned char request[] = { REQUEST };

static unsigned char reply[65536 + 64];

/* Reads until `want` bytes are there. */
static int fill(int fd, unsigned *have, unsigned want) {
    while (*have < want) {
        long n = read(fd, reply + *have, sizeof reply - *have);
        if (n <= 0) return 0;
        *have += (unsigned)n;
    }
    return 1;
}

static unsigned length_at(unsigned at) {
    return reply[at] | reply[at + 1] << 8 | reply[at + 2] << 16 | (unsigned)reply[at + 3] << 24;
}

int main(int argc, char **argv) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    unsigned have = 0, second, token, length;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (argc != 2 || fd < 0 || strlen(argv[1]) >= sizeof address.sun_path) return 1;
    strcpy(address.sun_path, argv[1]);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) return 3;
    if (write(fd, request, sizeof request) != (long)sizeof request) return 1;
    if (!fill(fd, &have, 6)) return 1;
    second = 6 + length_at(0);
    if (!fill(fd, &have, second + 6)) return 1;
    if (reply[second + 4] != 0x12 || reply[second + 5] != 0x80) return 1;
    if (!fill(fd, &have, second + 6 + length_at(second))) return 1;
    /* The token is the first field: a length below 251, or 251 and two bytes. */
    token = second + 6;
    length = reply[token++];
    if (length == 251) { length = reply[token] | reply[token + 1] << 8; token += 2; }
    reply[token + length] = '\n';
    return write(1, reply + token, length + 1) == (long)length + 1 ? 0 : 1;
}
