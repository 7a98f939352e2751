#include "base/notify.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/str.h"

static int notify_fd = -1;
static uint64_t watchdog_us;

void notify_open(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (path == NULL || (path[0] != '/' && path[0] != '@') ||
        str_copy(a.sun_path, sizeof a.sun_path, path) != ERR_OK)
        return;
    size_t n = offsetof(struct sockaddr_un, sun_path) + strlen(path);
    if (a.sun_path[0] == '@')
        a.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&a, (socklen_t)n) != 0) {
        (void)close(fd);
        fd = -1;
    }
    notify_fd = fd;
    const char *us = getenv("WATCHDOG_USEC");
    if (fd < 0 || us == NULL || str_parse_u64(us, &watchdog_us) != ERR_OK)
        watchdog_us = 0;
    /* PostgreSQL and the workers are not to speak for us. */
    (void)unsetenv("NOTIFY_SOCKET");
    (void)unsetenv("WATCHDOG_USEC");
    (void)unsetenv("WATCHDOG_PID");
}

void notify_send(const char *text)
{
    if (notify_fd >= 0)
        (void)send(notify_fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL);
}

uint64_t notify_watchdog_us(void)
{
    return watchdog_us;
}
