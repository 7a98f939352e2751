#include "agent/fence/path.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <unistd.h>

#include "base/str.h"

bool path_sockaddr(const char *path, struct sockaddr_un *ret_address, int *ret_dir)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    *ret_dir = -1;
    if (str_copy(a.sun_path, sizeof a.sun_path, path) != ERR_OK) {
        const char *name = strrchr(path, '/');
        char dir[4096];
        if (name == NULL ||
            str_copy_slice(dir, sizeof dir, slice_of(path, (size_t)(name - path))) != ERR_OK)
            return false;
        int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            return false;
        if (str_format(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d%s", fd, name) !=
            ERR_OK) {
            (void)close(fd);
            return false;
        }
        *ret_dir = fd;
    }
    *ret_address = a;
    return true;
}
