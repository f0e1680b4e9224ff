#!/bin/bash
# Starts a Slurm cluster of a login node and two compute nodes. namespaces.py runs it in namespaces of its own, so that
# nothing else on the machine sees what is mounted, named or listening here. $1: the folder of the logs.
source "$(dirname "$0")/nodes.sh" "$1"
mkdir /run/munge
for folder in /etc/munge /var/log/munge /var/lib/munge /etc/slurm; do mount -t tmpfs -o mode=755 cluster $folder; done
head -c 1024 /dev/urandom >/etc/munge/munge.key
chmod 400 /etc/munge/munge.key
for k in {0..7}; do ln -s /dev/null /run/gpu$k; done  # a GPU is a device file
mkdir small && mount -t tmpfs -o size=1m small small  # a disk of all nodes that is soon full
echo 'Name=gpu File=/run/gpu[0-7]' >/etc/slurm/gres.conf
cat >/etc/slurm/slurm.conf <<END
ClusterName=test
SlurmctldHost=login
SlurmUser=root
AuthInfo=cred_expire=5        # also the seconds that a requeued job waits; the least that Slurm accepts
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation=$1/state
SlurmdSpoolDir=$1/spool-%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd-%n.pid
SlurmctldLogFile=$1/slurmctld.log
SlurmdLogFile=$1/slurmd-%n.log
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=3600
GresTypes=gpu
NodeName=node[1-2] CPUs=64 RealMemory=270000 Gres=gpu:8
PartitionName=gpu Nodes=ALL Default=YES PriorityTier=2 PreemptMode=OFF
PartitionName=spare Nodes=ALL PriorityTier=1 GraceTime=20
END

munged --num-threads=2
slurmctld
for node in node1 node2; do on_node $node "slurmd -D -N $node"; done
until [ "$(sinfo --noheader --states=idle --format=%D 2>/dev/null)" = 2 ]; do sleep 0.05; done
