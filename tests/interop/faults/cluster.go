package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	fullDiskNode     = 3   // its folder has a file system of its own
	fullDiskMegabyte = 400 // so large
	progressPatience = 25 * time.Second
	inSyncPatience   = 60 * time.Second
)

// Cluster is etcd, nodes, and the network between them.
type Cluster struct {
	network *Network
	etcd    []*Process
	nodes   []*Node
	folder  string
	client  *Client // of the one who looks after it
	random  *rand.Rand
	log     func(format string, values ...any)
}

func startCluster(count int, program, etcd, folder string, seed int64, log func(string, ...any)) (*Cluster, error) {
	network, err := newNetwork()
	if err != nil {
		return nil, err
	}
	c := &Cluster{network: network, folder: folder, random: rand.New(rand.NewSource(seed)), log: log}
	secret := filepath.Join(folder, "secret")
	if err := os.WriteFile(secret, []byte("the secret of this test's nodes\n"), 0o600); err != nil {
		return nil, err
	}
	for member := range etcdMembers {
		if err := network.addHost(etcdHost + member); err != nil {
			return nil, err
		}
		c.etcd = append(c.etcd, newEtcd(network, etcd, folder, member))
	}
	for host := 1; host <= count; host++ {
		if err := network.addHost(host); err != nil {
			return nil, err
		}
		node := newNode(network, program, folder, host, count)
		if err := os.MkdirAll(node.folder, 0o755); err != nil {
			return nil, err
		}
		if host == fullDiskNode {
			err := runAll(fmt.Sprintf("mount -t tmpfs -o size=%dm none %s", fullDiskMegabyte, node.folder))
			if err != nil {
				return nil, err
			}
		}
		c.nodes = append(c.nodes, node)
	}
	c.client = newClient(c.urls(), "", seed)
	if err := c.startEtcd(); err != nil {
		return nil, err
	}
	return c, c.startNodes()
}

func (c *Cluster) startEtcd() error {
	for _, member := range c.etcd {
		if err := member.start(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) startNodes() error {
	for _, node := range c.nodes {
		if err := node.start(); err != nil {
			return err
		}
		if node.host == 1 { // it begins the cluster, the others join it
			if err := within(startPatience, "n1 ready", func() error { return c.ready(1) }); err != nil {
				return err
			}
		}
	}
	return c.settle()
}

// end ends everything, and takes it away but for the folders.
func (c *Cluster) end() error {
	for _, node := range c.nodes {
		node.resume()
		node.kill()
	}
	for _, member := range c.etcd {
		member.resume()
		member.kill()
	}
	if len(c.nodes) >= fullDiskNode {
		if err := run("umount", c.node(fullDiskNode).folder); err != nil {
			return err
		}
	}
	return c.network.end()
}

func (c *Cluster) urls() []string {
	var urls []string
	for _, node := range c.nodes {
		urls = append(urls, node.url())
	}
	return urls
}

func (c *Cluster) node(host int) *Node { return c.nodes[host-1] }

// within tries until there is no error, for so long.
func within(patience time.Duration, what string, try func() error) error {
	end := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: not within %s: %w", what, patience, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (c *Cluster) ready(host int) error {
	if reply := c.client.request(host-1, "GET", "/health?ready=1", nil, nil); reply.Status != 200 {
		return fmt.Errorf("n%d: status %d %s", host, reply.Status, reply.Body)
	}
	return nil
}

// State is what a node says of the cluster.
type State struct {
	Primary string   `json:"primary"`
	InSync  []string `json:"in_sync"`
	Epoch   int      `json:"epoch"`
}

func (c *Cluster) state(host int) (State, error) {
	var state State
	reply := c.client.request(host-1, "GET", "/v1/cluster", nil, nil)
	if reply.Status != 200 {
		return state, fmt.Errorf("n%d: status %d %s %s", host, reply.Status, reply.Message, reply.Body)
	}
	return state, json.Unmarshal(reply.Body, &state)
}

// primary is the one of the latest epoch that any living node knows, and the others are its followers.
func (c *Cluster) primary() (primary int, followers []int) {
	epoch := -1
	for _, node := range c.nodes {
		if !node.running() || node.paused {
			continue
		}
		state, err := c.state(node.host)
		if err == nil && state.Epoch > epoch && strings.HasPrefix(state.Primary, "n") {
			epoch = state.Epoch
			fmt.Sscanf(state.Primary, "n%d", &primary)
		}
	}
	if primary == 0 {
		primary = 1
	}
	for _, node := range c.nodes {
		if node.host != primary {
			followers = append(followers, node.host)
		}
	}
	c.random.Shuffle(len(followers), func(a, b int) { followers[a], followers[b] = followers[b], followers[a] })
	return primary, followers
}

// settle waits until all nodes are ready, in sync, and agree about it.
func (c *Cluster) settle() error {
	return within(inSyncPatience, "all nodes in sync", func() error {
		first := State{}
		for i, node := range c.nodes {
			if err := c.ready(node.host); err != nil {
				return err
			}
			state, err := c.state(node.host)
			if err != nil {
				return err
			}
			if i == 0 {
				first = state
			}
			if len(state.InSync) != len(c.nodes) || state.Primary != first.Primary || state.Epoch != first.Epoch {
				return fmt.Errorf("n%d says %+v, n1 says %+v", node.host, state, first)
			}
		}
		return nil
	})
}

func (c *Cluster) switchTo(host int) error {
	return within(progressPatience, fmt.Sprintf("n%d is primary", host), func() error {
		reply := c.client.request(c.client.anyNode(), "POST", "/v1/cluster/switchover",
			map[string]string{"to": c.node(host).name}, nil)
		if reply.Status != 200 {
			return fmt.Errorf("status %d %s %s", reply.Status, reply.Message, reply.Body)
		}
		return nil
	})
}

// heal takes all faults back: cables, processes that are paused or dead, and what a case gave a node besides.
func (c *Cluster) heal() error {
	var all []error
	all = append(all, c.network.heal())
	for _, member := range c.etcd {
		all = append(all, member.resume(), member.start())
	}
	for _, node := range c.nodes {
		all = append(all, node.resume())
		if node.host == fullDiskNode {
			all = append(all, c.emptyDisk())
		}
		if node.changed() {
			all = append(all, node.with(nil, nil))
		}
		all = append(all, node.start())
	}
	return errors.Join(all...)
}

func (c *Cluster) ballast() string { return filepath.Join(c.node(fullDiskNode).folder, "ballast") }

// fillDisk leaves not a byte.
func (c *Cluster) fillDisk() error {
	file, err := os.Create(c.ballast())
	if err != nil {
		return err
	}
	defer file.Close()
	piece := make([]byte, 1<<20)
	for size := len(piece); size > 0; size /= 2 {
		for {
			if _, err := file.Write(piece[:size]); err != nil {
				break
			}
		}
	}
	return nil
}

func (c *Cluster) emptyDisk() error {
	if len(c.nodes) < fullDiskNode {
		return nil
	}
	if err := os.Remove(c.ballast()); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// wipe takes all of a node's disk away, as a new one would be.
func (n *Node) wipe() error {
	entries, err := os.ReadDir(n.folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(n.folder, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// surprises are processes that ended without being asked to.
func (c *Cluster) surprises() []string {
	var names []string
	for _, node := range c.nodes {
		if node.Surprise.Swap(false) {
			names = append(names, node.name+" ended by itself; its log: "+node.log)
		}
	}
	return names
}

// finals reads everything at every node, at or after one bookmark that is taken now.
func (c *Cluster) finals(database string) ([]Final, error) {
	client := newClient(c.urls(), database, 1)
	begin := now()
	var mark string
	err := within(progressPatience, "a read of the primary", func() error {
		reply := client.query(0, map[string]string{"Offprint-Read": "primary"}, Statement{"SELECT 1", nil})
		if mark = reply.Bookmark; reply.Status != 200 || mark == "" {
			return fmt.Errorf("status %d %s", reply.Status, reply.Message)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var finals []Final
	for _, node := range c.nodes {
		err := within(progressPatience, "a read with a bookmark at "+node.name, func() error {
			reply := client.query(node.host-1, map[string]string{"Offprint-Bookmark": mark},
				Statement{"SELECT k, v FROM reg", nil}, Statement{"SELECT k, v FROM lists ORDER BY id", nil},
				Statement{"SELECT id, balance FROM acc", nil}, Statement{"SELECT name, owner FROM names", nil},
				Statement{"SELECT id, n FROM sess", nil})
			if reply.Status != 200 {
				return fmt.Errorf("status %d %s", reply.Status, reply.Message)
			}
			if reply.ServedBy != node.name {
				return fmt.Errorf("%s answered for %s", reply.ServedBy, node.name)
			}
			finals = append(finals, readFinal(node.name, Span{begin, now()}, reply))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return finals, nil
}

// snapshots are the databases' files, as each node has them at one position.
func (c *Cluster) snapshots(database string) error {
	return within(progressPatience, "the same bytes at all nodes", func() error {
		var first *Reply
		for _, node := range c.nodes {
			reply := c.client.request(node.host-1, "GET", "/db/"+database+"/snapshot", nil,
				map[string]string{"Offprint-Read": "any"})
			if reply.Status != 200 || len(reply.Body) < 512 {
				return fmt.Errorf("%s: status %d %s", node.name, reply.Status, reply.Message)
			}
			if first == nil {
				first = reply
			}
			if reply.Bookmark != first.Bookmark || !bytes.Equal(reply.Body, first.Body) {
				return fmt.Errorf("%s has other bytes (%d, at %s) than %s (%d, at %s)", node.name, len(reply.Body),
					reply.Bookmark, c.nodes[0].name, len(first.Body), first.Bookmark)
			}
		}
		return nil
	})
}

func readFinal(node string, span Span, reply *Reply) Final {
	final := Final{Node: node, Span: span, Lists: map[int][]int{}, Owners: map[string]string{}}
	numbers := func(at int) map[int]int {
		found := map[int]int{}
		for _, row := range reply.Results[at].Rows {
			found[integer(row[0])] = integer(row[1])
		}
		return found
	}
	final.Register, final.Balances, final.Sessions = numbers(0), numbers(2), numbers(4)
	for _, row := range reply.Results[1].Rows {
		key := integer(row[0])
		final.Lists[key] = append(final.Lists[key], integer(row[1]))
	}
	for _, row := range reply.Results[3].Rows {
		final.Owners[row[0].(string)] = row[1].(string)
	}
	return final
}
