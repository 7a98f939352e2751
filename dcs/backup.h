/* A copy of the state for a client (`regentctl dcs snapshot save`): made and read by workers, one at a
 * time. The copy is a file without a name: nothing is left of it, whatever ends this process. */
#ifndef REGENT_DCS_BACKUP_H
#define REGENT_DCS_BACKUP_H

#include <uv.h>

#include "dcs/node.h"

enum { BACKUP_PIECE = 256 * 1024, BACKUP_IDLE_MS = 60000 };

struct backup {
    uv_loop_t *loop;
    char dir[3072];
    struct snapshot_info info; /* of the copy; its sha256 points to the bytes below */
    uint8_t sha256[32];
    int fd;           /* -1: there is none */
    bool making;      /* a worker makes one */
    size_t reading;   /* workers that read it */
    uint64_t used_ms; /* when it was read last */
    bool closing;
};

void backup_start(struct backup *b, uv_loop_t *loop, const char *dir);
/* Each answers by `done` exactly once, also after backup_close(). */
void backup_save(struct backup *b, struct node *n, node_reply_cb *done, void *done_arg);
void backup_piece(struct backup *b, const struct snapshot_piece *p, node_reply_cb *done,
                  void *done_arg);
void backup_tick(struct backup *b); /* once a second: a copy nobody reads goes */
/* Jobs at workers still end on the loop. */
void backup_close(struct backup *b);

#endif
