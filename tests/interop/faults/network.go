package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// Network: each host is a network namespace with one cable to the namespace of this program, which forwards between
// them. What it does not forward is cut: in one direction, and without telling anybody.
type Network struct {
	hosts []int
	mutex sync.Mutex
	cuts  map[[2]int]bool
	slow  map[int]bool
}

func run(arguments ...string) error {
	out, err := exec.Command(arguments[0], arguments[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(arguments, " "), err, out)
	}
	return nil
}

func runAll(lines ...string) error {
	for _, line := range lines {
		if err := run(strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

// newNetwork wants a network, mount and process namespace of its own (part.sh makes them with unshare).
func newNetwork() (*Network, error) {
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return nil, err
	}
	if err := runAll("mount -t tmpfs none /run/netns", "ip link set lo up"); err != nil {
		return nil, err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return nil, err
	}
	return &Network{cuts: map[[2]int]bool{}, slow: map[int]bool{}}, nil
}

func address(host int) string { return fmt.Sprintf("10.77.%d.2", host) }

func (n *Network) addHost(host int) error {
	name, cable, subnet := fmt.Sprintf("h%d", host), fmt.Sprintf("cable%d", host), fmt.Sprintf("10.77.%d", host)
	n.hosts = append(n.hosts, host)
	return runAll(
		"ip netns add "+name,
		"ip link add "+cable+" type veth peer name eth0 netns "+name,
		"ip addr add "+subnet+".1/24 dev "+cable,
		"ip link set "+cable+" up",
		"ip -n "+name+" addr add "+subnet+".2/24 dev eth0",
		"ip -n "+name+" link set lo up",
		"ip -n "+name+" link set eth0 up",
		"ip -n "+name+" route add default via "+subnet+".1")
}

// end takes the hosts away, when nothing runs there any more.
func (n *Network) end() error {
	all := []error{n.heal()}
	for _, host := range n.hosts {
		all = append(all, runAll(fmt.Sprintf("ip link del cable%d", host), fmt.Sprintf("ip netns del h%d", host)))
	}
	return errors.Join(append(all, runAll("umount /run/netns"))...)
}

// on is the command line that runs a program on a host.
func (n *Network) on(host int, arguments ...string) []string {
	return append([]string{"nsenter", fmt.Sprintf("--net=/run/netns/h%d", host)}, arguments...)
}

// cut drops what `from` sends to `to`; the other direction stays.
func (n *Network) cut(from, to int) error { return n.rule("add", from, to) }

func (n *Network) mend(from, to int) error { return n.rule("del", from, to) }

func (n *Network) rule(verb string, from, to int) error {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	pair := [2]int{from, to}
	if n.cuts[pair] == (verb == "add") {
		return nil
	}
	if verb == "add" {
		n.cuts[pair] = true
	} else {
		delete(n.cuts, pair)
	}
	return runAll(fmt.Sprintf("ip rule %s iif cable%d to 10.77.%d.0/24 blackhole", verb, from, to))
}

func (n *Network) cutBoth(a, b int) error {
	if err := n.cut(a, b); err != nil {
		return err
	}
	return n.cut(b, a)
}

// slowDown makes what a host sends wait: by netem where the kernel has it, else in the queue of a narrow cable.
func (n *Network) slowDown(host int) error {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	n.slow[host] = true
	device := fmt.Sprintf("tc -n h%d qdisc add dev eth0 root ", host)
	if runAll(device+"netem delay 40ms 20ms") == nil {
		return nil
	}
	return runAll(device + "tbf rate 1mbit burst 4kb latency 400ms")
}

// heal takes all of it back.
func (n *Network) heal() error {
	n.mutex.Lock()
	var pairs [][2]int
	for pair := range n.cuts {
		pairs = append(pairs, pair)
	}
	n.mutex.Unlock()
	for _, pair := range pairs {
		if err := n.mend(pair[0], pair[1]); err != nil {
			return err
		}
	}
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for host := range n.slow {
		if err := runAll(fmt.Sprintf("tc -n h%d qdisc del dev eth0 root", host)); err != nil {
			return err
		}
		delete(n.slow, host)
	}
	return nil
}
