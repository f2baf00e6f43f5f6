package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// network is a network namespace for each member, all on one bridge, where the clients are.
// Routes into a black hole cut one direction between two members, a link that is down cuts a
// member off from all, and a token bucket makes it slow and lossy. (netem, nft and iptables
// are not on the machines that this was made for.)
type network struct {
	bridge string
	third  int // byte of the addresses, with second
	second int
	spaces map[uint64]string
}

// run is a command, and what it printed if it failed.
func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// newNetwork makes the bridge. Its name and addresses come from the process's number, so
// that several can be at a time.
func newNetwork() (*network, error) {
	pid := os.Getpid()
	n := &network{bridge: fmt.Sprintf("ovsc%d", pid), second: 200 + pid%50, third: pid / 50 % 250, spaces: map[uint64]string{}}
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can make network namespaces")
	}
	if err := run("ip", "link", "add", n.bridge, "type", "bridge"); err != nil {
		return nil, err
	}
	return n, errors.Join(
		run("ip", "address", "add", n.address(254)+"/24", "dev", n.bridge),
		run("ip", "link", "set", n.bridge, "up"))
}

func (n *network) address(member uint64) string {
	return fmt.Sprintf("10.%d.%d.%d", n.second, n.third, member)
}

func (n *network) link(member uint64) string { return fmt.Sprintf("c%dm%d", os.Getpid(), member) }

// add makes a member's namespace and returns what starts a command in it.
func (n *network) add(member uint64) (prefix []string, err error) {
	space := fmt.Sprintf("ovs-chaos-%d-%d", os.Getpid(), member)
	n.spaces[member] = space
	for _, c := range []string{
		"netns add " + space,
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", n.link(member), space),
		fmt.Sprintf("link set %s master %s", n.link(member), n.bridge),
		fmt.Sprintf("link set %s up", n.link(member)),
		fmt.Sprintf("-n %s address add %s/24 dev eth0", space, n.address(member)),
		fmt.Sprintf("-n %s link set eth0 up", space),
		fmt.Sprintf("-n %s link set lo up", space),
	} {
		if err := run("ip", strings.Fields(c)...); err != nil {
			return nil, err
		}
	}
	// ip netns exec would make a mount namespace too: a copy of every mount of the machine,
	// which nobody else could unmount while the member runs.
	return []string{"nsenter", "--net=/run/netns/" + space}, nil
}

// isolate cuts a member off from all others and from the clients, until the call of heal.
func (n *network) isolate(member uint64) (heal func() error, err error) {
	return func() error { return run("ip", "link", "set", n.link(member), "up") },
		run("ip", "link", "set", n.link(member), "down")
}

// cut drops what a member sends to another. TCP between the two then brings nothing in the
// other direction either, once its window is full, but what is under way does arrive.
func (n *network) cut(from, to uint64) (heal func() error, err error) {
	route := func(verb string) error {
		return run("ip", "-n", n.spaces[from], "route", verb, "blackhole", n.address(to)+"/32")
	}
	return func() error { return route("del") }, route("add")
}

// slow lets a member send 2 Mbit/s, and drops what would wait for longer than 50 ms.
func (n *network) slow(member uint64) (heal func() error, err error) {
	qdisc := func(verb string, more ...string) error {
		return run("tc", append([]string{"-n", n.spaces[member], "qdisc", verb, "dev", "eth0", "root"}, more...)...)
	}
	return func() error { return qdisc("del") }, qdisc("add", "tbf", "rate", "2mbit", "burst", "8kb", "latency", "50ms")
}

func (n *network) close() {
	for _, space := range n.spaces {
		_ = run("ip", "netns", "del", space)
	}
	_ = run("ip", "link", "del", n.bridge)
}
