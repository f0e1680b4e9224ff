#!/bin/bash
# Starts a Grid Engine cluster with the resource names of Boston University's: a login node and two compute nodes.
# namespaces.py runs it in namespaces of its own. $1: the folder of the logs.
source "$(dirname "$0")/nodes.sh" "$1"
for folder in /var/lib/gridengine/default /var/spool/gridengine; do  # the package has made an empty cluster there
    cp -a $folder copy
    mount -t tmpfs -o mode=755 cluster $folder
    cp -a copy/. $folder
    rm -r copy
done
sge_qmaster
until qconf -sm &>qconf.log; do sleep 0.05; done

with() {  # with 'KEY VALUE'...: the lines of a configuration with other values
    for line; do set -- "$@" -e "s|^${line%% *} .*|$line|" && shift; done
    sed "$@"
}
add() {  # add KIND NAME 'KEY VALUE'...: a new object, which has the other values of qconf's template
    { EDITOR=cat qconf -a"$1" $2 || true; } 2>>qconf.log | with "${@:3}" >new
    qconf -A"$1" new
}
qconf -sconf global | with 'min_uid 0' 'min_gid 0' 'load_report_time 0:0:1' |
    sed 's/flush_time=/accounting_flush_time=00:00:00 flush_time=/' >global
qconf -Mconf global
qconf -ssconf | with 'schedule_interval 0:0:1' 'flush_submit_sec 1' 'flush_finish_sec 1' 'job_load_adjustments NONE' >new
qconf -Msconf new
{
    qconf -sc
    echo 'gpus         gpus   INT    <= YES JOB 0    0'  # YES would multiply it by the slots
    echo 'gpu_c        gpu_c  DOUBLE <= YES NO  0    0'
    echo 'gpu_memory   gpu_m  MEMORY <= YES NO  0    0'
    echo 'gpu_type     gpu_t  STRING == YES NO  NONE 0'
    echo 'mem_per_core mpc    MEMORY <= YES NO  0    0'
} >new
qconf -Mc new
qconf -as login
for node in node1 node2; do
    qconf -ah $node
    qconf -as $node
    add e '' "hostname $node" 'complex_values gpus=8,gpu_c=8.0,gpu_memory=48G,gpu_type=A40,mem_per_core=16G'
done
add prj '' 'name ds542'
add p omp 'slots 99'
add p mpi_4_tasks_per_node 'slots 99' 'allocation_rule 4' 'control_slaves TRUE' \
    'accounting_summary TRUE'
add q gpu 'hostlist node1 node2' 'slots 8' 'pe_list omp mpi_4_tasks_per_node' 'rerun TRUE' 'notify 00:00:20' \
    'load_thresholds NONE'
for node in node1 node2; do on_node $node "sge_execd; sleep infinity"; done
until [ "$(qstat -f -q gpu | grep -c 'lx-amd64 *$')" = 2 ]; do sleep 0.05; done
