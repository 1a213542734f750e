package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	startPatience = 30 * time.Second
	stopPatience  = 40 * time.Second
)

// Process is a program on a host of the network, which can be killed, paused, and started again.
type Process struct {
	name        string
	commandLine []string
	environment []string
	log         string
	command     *exec.Cmd
	ended       chan struct{}
	wanted      atomic.Bool // that it ends is what was asked for
	paused      bool
	Surprise    atomic.Bool // it ended by itself
}

func (p *Process) running() bool {
	if p.command == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (p *Process) start() error {
	if p.running() {
		return nil
	}
	file, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	fmt.Fprintf(file, "=== start %d ms %s %v\n", now()/1e6, strings.Join(p.commandLine, " "), p.environment)
	command := exec.Command(p.commandLine[0], p.commandLine[1:]...)
	command.Stdout, command.Stderr = file, file
	command.Env = append(os.Environ(), p.environment...)
	p.wanted.Store(false)
	if err := command.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	p.command, p.ended = command, ended
	go func() {
		command.Wait()
		if !p.wanted.Load() {
			p.Surprise.Store(true)
		}
		close(ended)
	}()
	return nil
}

func (p *Process) signal(signal syscall.Signal) error {
	if !p.running() {
		return nil
	}
	return p.command.Process.Signal(signal)
}

func (p *Process) kill() {
	p.wanted.Store(true)
	p.signal(syscall.SIGKILL)
	if p.command != nil {
		<-p.ended
	}
	p.paused = false
}

func (p *Process) pause() error {
	p.paused = true
	return p.signal(syscall.SIGSTOP)
}

func (p *Process) resume() error {
	p.paused = false
	return p.signal(syscall.SIGCONT)
}

// terminate asks it to end, and waits until it has.
func (p *Process) terminate() error {
	if !p.running() {
		return nil
	}
	p.wanted.Store(true)
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopPatience):
		p.kill()
		return fmt.Errorf("%s did not end within %s of SIGTERM", p.name, stopPatience)
	}
}

// killChild kills the server below a guardian, which then ends as well.
func (p *Process) killChild() error {
	pid := p.command.Process.Pid
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return err
	}
	children := strings.Fields(string(text))
	if len(children) != 1 {
		return fmt.Errorf("the guardian of %s has %d children", p.name, len(children))
	}
	child, err := strconv.Atoi(children[0])
	if err != nil {
		return err
	}
	p.wanted.Store(true)
	if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(startPatience):
		return fmt.Errorf("the guardian of %s lives on without its child", p.name)
	}
}

// Node is `offprint serve --cluster` with its folder.
type Node struct {
	Process
	host   int
	folder string
	plain  []string // its command line without what one case adds
}

func (n *Node) url() string { return fmt.Sprintf("http://%s:8080", address(n.host)) }

// with starts it (again) with further arguments and variables; without any it is as it was at first.
func (n *Node) with(arguments, environment []string) error {
	if err := n.terminate(); err != nil {
		return err
	}
	n.commandLine = append(append([]string{}, n.plain...), arguments...)
	n.environment = environment
	return n.start()
}

func (n *Node) changed() bool { return len(n.commandLine) != len(n.plain) || len(n.environment) > 0 }

const (
	etcdMembers = 3
	etcdHost    = 100 // and the next ones
)

func newEtcd(network *Network, program, folder string, member int) *Process {
	name := fmt.Sprintf("etcd%d", member)
	var all []string
	for i := range etcdMembers {
		all = append(all, fmt.Sprintf("etcd%d=http://%s:2380", i, address(etcdHost+i)))
	}
	host := address(etcdHost + member)
	return &Process{name: name, log: filepath.Join(folder, name+".log"),
		commandLine: network.on(etcdHost+member, program, "--name", name, "--data-dir", filepath.Join(folder, name),
			"--listen-client-urls", "http://"+host+":2379", "--advertise-client-urls", "http://"+host+":2379",
			"--listen-peer-urls", "http://"+host+":2380", "--initial-advertise-peer-urls", "http://"+host+":2380",
			"--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", "new", "--log-level", "error",
			"--heartbeat-interval", "100", "--election-timeout", "1000")}
}

func newNode(network *Network, program, folder string, host, nodes int) *Node {
	var etcd []string
	for i := range etcdMembers {
		etcd = append(etcd, fmt.Sprintf("http://%s:2379", address(etcdHost+i)))
	}
	name := fmt.Sprintf("n%d", host)
	node := &Node{host: host, folder: filepath.Join(folder, name)}
	node.name, node.log = name, filepath.Join(folder, name+".log")
	node.plain = network.on(host, program, "serve", "--data", node.folder, "--listen", address(host)+":8080",
		"--insecure", "--cluster", "faults", "--node", name, "--peer-listen", address(host)+":9081",
		"--etcd", strings.Join(etcd, ","), "--cluster-secret", filepath.Join(folder, "secret"),
		"--replicas", strconv.Itoa(nodes), "--request-timeout-ms", "2500")
	node.commandLine = append([]string{}, node.plain...)
	return node
}
