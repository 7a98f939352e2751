/* Any bytes as a frame of a member: refused, or decoded to something that encodes to the same bytes. */
#include "base/assert.h"
#include "dcs/raft_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct raft_frame f;
    struct errmsg e;
    if (raft_frame_decode(slice_of(data, size), &f, &e) == ERR_OK) {
        struct buf b CLEANUP(buf_close) = BUF_INIT;
        raft_frame_encode(&f, &b);
        ASSERT(slice_eq(buf_slice(&b), slice_of(data, size)));
    }
    raft_frame_close(&f);
    return 0;
}
