/* <raft.h> for the few files that drive the library: the tags it shares with dcs/raft_core.h get
 * another name while it is read. Tags are no part of the ABI. */
#ifndef REGENT_DCS_RAFT_LIB_H
#define REGENT_DCS_RAFT_LIB_H

#define raft_entry_type raft_lib_entry_type
#define raft_server raft_lib_server
#define raft_log raft_lib_log
#include <raft.h>
#undef raft_entry_type
#undef raft_server
#undef raft_log

#endif
