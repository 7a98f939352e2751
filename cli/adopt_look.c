/* Looking at a server that is to be adopted: its files, its control file, whether it runs. Changes nothing. */
#include <ctype.h>
#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/adopt.h"

enum { LINE_LENGTH = 4096, INCLUDE_DEPTH = 4, OLDEST_MAJOR = 13 };

#define DEBIAN "/etc/postgresql"

/* ---- postgresql.conf ---- */

const char *adoption_setting(const struct adoption *a, const char *name, const char *fallback)
{
    for (size_t i = 0; i < a->settings_n; i++)
        if (strcasecmp(a->settings[i].key, name) == 0)
            return a->settings[i].value;
    return fallback;
}

static enum err put_setting(struct adoption *a, const char *name, const char *value,
                            struct errmsg *e)
{
    size_t i = 0;
    while (i < a->settings_n && strcasecmp(a->settings[i].key, name) != 0)
        i++;
    if (i == ADOPT_SETTINGS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d settings in %s", ADOPT_SETTINGS_MAX,
                       a->conf_dir);
    if (i == a->settings_n) {
        a->settings[i].key = mem_strdup(name);
        a->settings_n++;
    }
    mem_free(a->settings[i].value);
    a->settings[i].value = mem_strdup(value);
    return ERR_OK;
}

/* `name = value`, `name value`, `name = 'it''s'`, a comment behind; false: nothing is set here. */
static bool split_line(char *line, char **ret_name, char *ret_value)
{
    char *p = line + strspn(line, " \t");
    *ret_name = p;
    p += strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.");
    if (p == *ret_name)
        return false;
    char *end = p;
    p += strspn(p, " \t");
    p += *p == '=';
    p += strspn(p, " \t");
    *end = '\0';
    size_t n = 0;
    if (*p != '\'') {
        while (*p != '\0' && strchr(" \t\r\n#", *p) == NULL)
            ret_value[n++] = *p++;
        ret_value[n] = '\0';
        return n > 0;
    }
    for (p++; *p != '\0' && (*p != '\'' || p[1] == '\''); p++) {
        p += (*p == '\'' || *p == '\\') && p[1] != '\0';
        ret_value[n++] = *p;
    }
    ret_value[n] = '\0';
    return *p == '\'';
}

static enum err include(struct adoption *a, const char *name, const char *value, unsigned depth,
                        struct errmsg *e)
{
    char *base CLEANUP(mem_cleanup) =
        value[0] == '/' ? mem_strdup(value) : mem_printf("%s/%s", a->conf_dir, value);
    enum err rv = ERR_OK;
    glob_t found = {0};
    if (depth == INCLUDE_DEPTH)
        return err_set(e, ERR_LIMIT, "includes nested deeper than %d: %s", INCLUDE_DEPTH, base);
    if (strcasecmp(name, "include_dir") != 0)
        return access(base, F_OK) != 0 ? ERR_OK : adoption_read_conf(a, base, depth + 1, e);
    char *pattern CLEANUP(mem_cleanup) = mem_printf("%s/*.conf", base);
    if (glob(pattern, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc && rv == ERR_OK; i++)
            rv = adoption_read_conf(a, found.gl_pathv[i], depth + 1, e);
    globfree(&found);
    return rv;
}

enum err adoption_read_conf(struct adoption *a, const char *path, unsigned depth,
                            struct errmsg *e)
{
    char line[LINE_LENGTH];
    char value[LINE_LENGTH];
    char *name;
    enum err rv = ERR_OK;
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return err_set(e, err_from_errno(errno), "read %s: %s", path, strerror(errno));
    while (rv == ERR_OK && fgets(line, sizeof line, f) != NULL) {
        if (!split_line(line, &name, value))
            continue;
        rv = strncasecmp(name, "include", strlen("include")) == 0
                 ? include(a, name, value, depth, e)
                 : put_setting(a, name, value, e);
    }
    (void)fclose(f);
    return rv;
}

/* ---- pg_hba.conf, pg_ident.conf ---- */

static enum err read_lines(const char *path, char **ret, size_t *ret_n, struct errmsg *e)
{
    char line[LINE_LENGTH];
    FILE *f = fopen(path, "re");
    enum err rv = ERR_OK;
    if (f == NULL)
        return errno == ENOENT
                   ? ERR_OK
                   : err_set(e, err_from_errno(errno), "read %s: %s", path, strerror(errno));
    while (rv == ERR_OK && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        const char *p = line + strspn(line, " \t");
        if (*p == '\0' || *p == '#')
            continue;
        if (*ret_n == ADOPT_LINES_MAX)
            rv = err_set(e, ERR_LIMIT, "more than %d lines in %s", ADOPT_LINES_MAX, path);
        else
            ret[(*ret_n)++] = mem_strdup(p);
    }
    (void)fclose(f);
    return rv;
}

static enum err read_access(struct adoption *a, struct errmsg *e)
{
    char *hba CLEANUP(mem_cleanup) = mem_printf("%s/pg_hba.conf", a->conf_dir);
    char *ident CLEANUP(mem_cleanup) = mem_printf("%s/pg_ident.conf", a->conf_dir);
    enum err rv = read_lines(adoption_setting(a, "hba_file", hba), a->hba, &a->hba_n, e);
    return rv == ERR_OK
               ? read_lines(adoption_setting(a, "ident_file", ident), a->ident, &a->ident_n, e)
               : rv;
}

/* ---- pg_controldata ---- */

static NORETURN void be_controldata(const struct adoption *a, int out)
{
    char *program = mem_printf("%s/pg_controldata", a->bin_dir);
    const char *argv[] = {program, "-D", a->data_dir, NULL};
    const char *env[] = {"LC_ALL=C", NULL};
    if (dup2(out, STDOUT_FILENO) >= 0)
        (void)execve(program, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
    _exit(127);
}

static void take_field(const char *line, const char *name, char *ret, size_t size)
{
    size_t n = strlen(name);
    if (strncmp(line, name, n) != 0)
        return;
    str_cut(ret, size, line + n + strspn(line + n, " "));
    ret[strcspn(ret, "\n")] = '\0';
}

static enum err read_control(struct adoption *a, struct errmsg *e)
{
    char line[512];
    char hints[16] = "";
    char checksums[16] = "";
    int fds[2];
    int status = 0;
    if (pipe(fds) != 0)
        return err_set(e, ERR_IO, "pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child == 0)
        be_controldata(a, fds[1]);
    (void)close(fds[1]);
    FILE *f = fdopen(fds[0], "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        take_field(line, "Database cluster state:", a->state, sizeof a->state);
        take_field(line, "Database system identifier:", a->system_id, sizeof a->system_id);
        take_field(line, "wal_log_hints setting:", hints, sizeof hints);
        take_field(line, "Data page checksum version:", checksums, sizeof checksums);
    }
    if (f != NULL)
        (void)fclose(f);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (child < 0 || status != 0 || a->system_id[0] == '\0')
        return err_set(e, ERR_IO, "%s/pg_controldata cannot read %s: is it a data directory?",
                       a->bin_dir, a->data_dir);
    a->hints = strcmp(hints, "on") == 0;
    a->checksums = checksums[0] != '\0' && strcmp(checksums, "0") != 0;
    return ERR_OK;
}

/* ---- where it is ---- */

static bool in_data(const struct adoption *a, const char *name)
{
    char *path CLEANUP(mem_cleanup) = mem_printf("%s/%s", a->data_dir, name);
    return access(path, F_OK) == 0;
}

static enum err debian_cluster(struct adoption *a, const char *dir, struct errmsg *e)
{
    char *conf CLEANUP(mem_cleanup) = mem_printf("%s/postgresql.conf", dir);
    str_cut(a->conf_dir, sizeof a->conf_dir, dir);
    enum err rv = adoption_read_conf(a, conf, 0, e);
    if (rv != ERR_OK)
        return rv;
    if (str_copy(a->data_dir, sizeof a->data_dir, adoption_setting(a, "data_directory", "")) !=
            ERR_OK ||
        a->data_dir[0] == '\0')
        return err_set(e, ERR_INVALID, "%s names no data_directory", conf);
    (void)snprintf(a->start_conf, sizeof a->start_conf, "%.580s/start.conf", dir);
    return ERR_OK;
}

/* A directory may be of one of Debian's clusters, whose configuration lies elsewhere. */
static enum err data_directory(struct adoption *a, const char *dir, struct errmsg *e)
{
    char real[PATH_MAX];
    char theirs[PATH_MAX];
    glob_t found = {0};
    enum err rv = ERR_NOT_FOUND;
    if (realpath(dir, real) == NULL)
        return err_set(e, err_from_errno(errno), "%s: %s", dir, strerror(errno));
    bool any = glob(DEBIAN "/*/*/postgresql.conf", 0, NULL, &found) == 0;
    for (size_t i = 0; any && i < found.gl_pathc && rv == ERR_NOT_FOUND; i++) {
        struct adoption one = {.port = 0};
        found.gl_pathv[i][strlen(found.gl_pathv[i]) - strlen("/postgresql.conf")] = '\0';
        bool ok = debian_cluster(&one, found.gl_pathv[i], NULL) == ERR_OK &&
                  realpath(one.data_dir, theirs) != NULL && strcmp(theirs, real) == 0;
        adoption_close(&one);
        if (ok)
            rv = debian_cluster(a, found.gl_pathv[i], e);
    }
    globfree(&found);
    if (rv != ERR_NOT_FOUND)
        return rv;
    if (str_copy(a->data_dir, sizeof a->data_dir, real) != ERR_OK)
        return err_set(e, ERR_LIMIT, "%s is too long", real);
    str_cut(a->conf_dir, sizeof a->conf_dir, real);
    char *conf CLEANUP(mem_cleanup) = mem_printf("%s/postgresql.conf", real);
    return access(conf, F_OK) != 0 ? ERR_OK : adoption_read_conf(a, conf, 0, e);
}

static enum err find_programs(struct adoption *a, const char *bin_dir, struct errmsg *e)
{
    char *path CLEANUP(mem_cleanup) = mem_printf("%s/PG_VERSION", a->data_dir);
    char text[16] = "";
    FILE *f = fopen(path, "re");
    if (f == NULL || fgets(text, sizeof text, f) == NULL)
        text[0] = '\0';
    if (f != NULL)
        (void)fclose(f);
    a->major = strtoul(text, NULL, 10);
    if (a->major == 0)
        return err_set(e, ERR_INVALID, "%s is no data directory of PostgreSQL that can be read",
                       a->data_dir);
    if (a->major < OLDEST_MAJOR)
        return err_set(e, ERR_PRECONDITION,
                       "%s is of PostgreSQL %lu; %d is the oldest that Regent runs",
                       a->data_dir, a->major, OLDEST_MAJOR);
    if (bin_dir != NULL)
        str_cut(a->bin_dir, sizeof a->bin_dir, bin_dir);
    else
        (void)snprintf(a->bin_dir, sizeof a->bin_dir, "/usr/lib/postgresql/%lu/bin", a->major);
    return ERR_OK;
}

/* The postmaster that its lock file names, if it lives and works there. */
static void find_server(struct adoption *a)
{
    char text[64] = "";
    char cwd[PATH_MAX];
    char real[PATH_MAX];
    char *lock CLEANUP(mem_cleanup) = mem_printf("%s/postmaster.pid", a->data_dir);
    FILE *f = fopen(lock, "re");
    if (f != NULL && fgets(text, sizeof text, f) == NULL)
        text[0] = '\0';
    if (f != NULL)
        (void)fclose(f);
    unsigned long pid = strtoul(text, NULL, 10);
    char *link CLEANUP(mem_cleanup) = mem_printf("/proc/%lu/cwd", pid);
    ssize_t n = pid > 1 ? readlink(link, cwd, sizeof cwd - 1) : -1;
    cwd[n > 0 ? n : 0] = '\0';
    if (n > 0 && realpath(a->data_dir, real) != NULL && strcmp(cwd, real) == 0)
        a->pid = pid;
}

static enum err look(struct adoption *a, const char *bin_dir, struct errmsg *e)
{
    struct stat st;
    enum err rv = find_programs(a, bin_dir, e);
    if (rv == ERR_OK)
        rv = read_access(a, e);
    if (rv == ERR_OK)
        rv = read_control(a, e);
    if (rv != ERR_OK)
        return rv;
    if (stat(a->data_dir, &st) != 0)
        return err_set(e, err_from_errno(errno), "%s: %s", a->data_dir, strerror(errno));
    a->owner = st.st_uid;
    if (str_parse_u64(adoption_setting(a, "port", "5432"), &a->port) != ERR_OK)
        a->port = 5432;
    a->standby = in_data(a, "standby.signal") || in_data(a, "recovery.signal") ||
                 strstr(a->state, "archive recovery") != NULL ||
                 strstr(a->state, "shut down in recovery") != NULL;
    if (in_data(a, "regent.incarnation"))
        return err_set(e, ERR_EXISTS, "%s is of a node of Regent already", a->data_dir);
    find_server(a);
    return ERR_OK;
}

enum err adoption_look(const char *cluster, const char *bin_dir, struct adoption *ret,
                       struct errmsg *e)
{
    *ret = (struct adoption){.port = 0};
    enum err rv;
    if (cluster[0] == '/') {
        rv = data_directory(ret, cluster, e);
    } else {
        char *dir CLEANUP(mem_cleanup) = mem_printf(DEBIAN "/%s", cluster);
        rv = debian_cluster(ret, dir, e);
    }
    return rv == ERR_OK ? look(ret, bin_dir, e) : rv;
}

void adoption_close(struct adoption *a)
{
    for (size_t i = 0; i < a->settings_n; i++) {
        mem_free(a->settings[i].key);
        mem_free(a->settings[i].value);
    }
    for (size_t i = 0; i < a->hba_n; i++)
        mem_free(a->hba[i]);
    for (size_t i = 0; i < a->ident_n; i++)
        mem_free(a->ident[i]);
    *a = (struct adoption){.port = 0};
}
