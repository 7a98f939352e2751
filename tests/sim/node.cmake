# Whole nodes: production DCS and engine over models of disk, network, fence and PostgreSQL.
add_executable(node_sim
    node_act.c node_check.c node_client.c node_daemon.c node_disk.c node_faults.c node_fence.c
    node_net.c node_pg.c node_see.c node_setup.c node_sim.c node_wal.c node_watch.c node_world.c)
target_link_libraries(node_sim PRIVATE regent_agent)
