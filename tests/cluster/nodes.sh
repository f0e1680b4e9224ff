# Makes a login node and the compute nodes node1 and node2, on a network of their own without a way out. Sourced by the
# scripts that start a cluster, with the folder of the logs as $1.
set -euo pipefail
cd "$1"
hostname login
mount -t tmpfs -o mode=755 cluster /run
mkdir /run/netns
printf '127.0.0.1 localhost\n10.0.0.1 login\n10.0.0.11 node1\n10.0.0.12 node2\n' >hosts
mount --bind hosts /etc/hosts
ip link set lo up
ip link add cluster type bridge
ip address add 10.0.0.1/24 dev cluster
ip link set cluster up
for k in 1 2; do
    ip netns add node$k
    ip link add node$k type veth peer name eth0 netns node$k
    ip link set node$k master cluster up
    ip -n node$k address add 10.0.0.1$k/24 dev eth0
    ip -n node$k link set lo up
    ip -n node$k link set eth0 up
done

on_node() {  # on_node NAME COMMAND: starts a daemon on a node, which has processes of its own
    nsenter --net=/run/netns/"$1" unshare --uts --pid --mount --fork --kill-child --mount-proc \
        bash -c "hostname $1; $2; true" &>"$1.out" &
}
