/* The commands of regentctl; each gets argv with its own last word first. */
#ifndef REGENT_CLI_COMMANDS_H
#define REGENT_CLI_COMMANDS_H

#include "cli/cli.h"

int cmd_adopt(struct cli *c, int argc, char **argv);
int cmd_cert_create(struct cli *c, int argc, char **argv);
int cmd_cert_list(struct cli *c, int argc, char **argv);
int cmd_cert_revoke(struct cli *c, int argc, char **argv);
int cmd_dcs_compact(struct cli *c, int argc, char **argv);
int cmd_dcs_del(struct cli *c, int argc, char **argv);
int cmd_dcs_get(struct cli *c, int argc, char **argv);
int cmd_dcs_hash(struct cli *c, int argc, char **argv);
int cmd_dcs_health(struct cli *c, int argc, char **argv);
int cmd_dcs_lease_grant(struct cli *c, int argc, char **argv);
int cmd_dcs_lease_keep_alive(struct cli *c, int argc, char **argv);
int cmd_dcs_lease_list(struct cli *c, int argc, char **argv);
int cmd_dcs_lease_revoke(struct cli *c, int argc, char **argv);
int cmd_dcs_lease_timetolive(struct cli *c, int argc, char **argv);
int cmd_dcs_put(struct cli *c, int argc, char **argv);
int cmd_dcs_recover(struct cli *c, int argc, char **argv);
int cmd_dcs_snapshot_restore(struct cli *c, int argc, char **argv);
int cmd_dcs_snapshot_save(struct cli *c, int argc, char **argv);
int cmd_dcs_snapshot_status(struct cli *c, int argc, char **argv);
int cmd_dcs_status(struct cli *c, int argc, char **argv);
int cmd_dcs_transfer(struct cli *c, int argc, char **argv);
int cmd_dcs_txn(struct cli *c, int argc, char **argv);
int cmd_dcs_watch(struct cli *c, int argc, char **argv);
int cmd_demo_down(struct cli *c, int argc, char **argv);
int cmd_demo_kill(struct cli *c, int argc, char **argv);
int cmd_demo_psql(struct cli *c, int argc, char **argv);
int cmd_demo_start(struct cli *c, int argc, char **argv);
int cmd_demo_status(struct cli *c, int argc, char **argv);
int cmd_demo_up(struct cli *c, int argc, char **argv);
int cmd_doctor(struct cli *c, int argc, char **argv);
int cmd_dsn(struct cli *c, int argc, char **argv);
int cmd_edit_config(struct cli *c, int argc, char **argv);
int cmd_explain(struct cli *c, int argc, char **argv);
int cmd_failover(struct cli *c, int argc, char **argv);
int cmd_generate(struct cli *c, int argc, char **argv);
int cmd_history(struct cli *c, int argc, char **argv);
int cmd_init(struct cli *c, int argc, char **argv);
int cmd_join(struct cli *c, int argc, char **argv);
int cmd_import(struct cli *c, int argc, char **argv);
int cmd_leave(struct cli *c, int argc, char **argv);
int cmd_list(struct cli *c, int argc, char **argv);
int cmd_member_add(struct cli *c, int argc, char **argv);
int cmd_member_demote(struct cli *c, int argc, char **argv);
int cmd_member_list(struct cli *c, int argc, char **argv);
int cmd_member_promote(struct cli *c, int argc, char **argv);
int cmd_member_remove(struct cli *c, int argc, char **argv);
int cmd_member_replace(struct cli *c, int argc, char **argv);
int cmd_member_target(struct cli *c, int argc, char **argv);
int cmd_pause(struct cli *c, int argc, char **argv);
int cmd_resume(struct cli *c, int argc, char **argv);
int cmd_restart(struct cli *c, int argc, char **argv);
int cmd_query(struct cli *c, int argc, char **argv);
int cmd_reload(struct cli *c, int argc, char **argv);
int cmd_remove(struct cli *c, int argc, char **argv);
int cmd_reinit(struct cli *c, int argc, char **argv);
int cmd_flush(struct cli *c, int argc, char **argv);
int cmd_start(struct cli *c, int argc, char **argv);
int cmd_stop(struct cli *c, int argc, char **argv);
int cmd_promote_cluster(struct cli *c, int argc, char **argv);
int cmd_demote_cluster(struct cli *c, int argc, char **argv);
int cmd_show_config(struct cli *c, int argc, char **argv);
int cmd_sql(struct cli *c, int argc, char **argv);
int cmd_status(struct cli *c, int argc, char **argv);
int cmd_switchover(struct cli *c, int argc, char **argv);
int cmd_token_create(struct cli *c, int argc, char **argv);
int cmd_token_list(struct cli *c, int argc, char **argv);
int cmd_token_revoke(struct cli *c, int argc, char **argv);
int cmd_topology(struct cli *c, int argc, char **argv);
int cmd_user_create(struct cli *c, int argc, char **argv);
int cmd_user_delete(struct cli *c, int argc, char **argv);
int cmd_user_password(struct cli *c, int argc, char **argv);
int cmd_what_if(struct cli *c, int argc, char **argv);
int cmd_version(struct cli *c, int argc, char **argv);

#endif
