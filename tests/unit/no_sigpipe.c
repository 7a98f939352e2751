/* In every unit test, as in every program with a conn: a peer that goes away is an error of the write. */
#include <signal.h>

__attribute__((constructor)) static void ignore_sigpipe(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
}
