package faults

import (
	"fmt"
	"os"
	"time"
)

// Case breaks something of a healthy cluster under load and waits while it is broken. What it leaves is healed after.
type Case struct {
	name    string
	nodes   int // it wants so many at least
	library bool
	run     func(c *Cluster) error
}

// A moment between two times, drawn by the seed.
func (c *Cluster) wait(least, most time.Duration) {
	time.Sleep(least + time.Duration(c.random.Int63n(int64(most-least)+1)))
}

func (c *Cluster) waitShort() { c.wait(100*time.Millisecond, 900*time.Millisecond) }
func (c *Cluster) waitLong()  { c.wait(2000*time.Millisecond, 4000*time.Millisecond) }

// cases is the failure table of docs/guides/cluster.md, "What happens when", made happen.
var cases = []Case{
	{name: "kill the primary", run: func(c *Cluster) error {
		primary, _ := c.primary()
		c.node(primary).kill()
		c.waitLong()
		return c.node(primary).start()
	}},
	{name: "kill the primary, and start it at once", run: func(c *Cluster) error {
		for range 3 {
			primary, _ := c.primary()
			c.node(primary).kill()
			if err := c.node(primary).start(); err != nil {
				return err
			}
			c.wait(1500*time.Millisecond, 2500*time.Millisecond)
		}
		return nil
	}},
	{name: "kill a follower", run: func(c *Cluster) error {
		_, followers := c.primary()
		c.node(followers[0]).kill()
		c.waitLong()
		return c.node(followers[0]).start()
	}},
	{name: "kill followers that are cut from each other, and make them primary", nodes: 3, run: func(c *Cluster) error {
		// What the other one has of their connection is of no use, and it says nothing on it while it follows.
		primary, followers := c.primary()
		for _, host := range followers[:2] {
			if err := c.network.cutBoth(followers[0], followers[1]); err != nil {
				return err
			}
			c.node(host).kill()
			c.wait(3500*time.Millisecond, 4500*time.Millisecond) // longer than its kernel says that it has gone
			if err := c.network.heal(); err != nil {
				return err
			}
			if err := c.node(host).start(); err != nil {
				return err
			}
			if err := c.settle(); err != nil {
				return err
			}
			for _, next := range []int{host, primary} {
				if err := c.switchTo(next); err != nil {
					return err
				}
				if err := c.settle(); err != nil {
					return err
				}
			}
		}
		return nil
	}},
	{name: "kill all followers", run: func(c *Cluster) error {
		_, followers := c.primary()
		for _, host := range followers {
			c.node(host).kill()
		}
		c.waitLong()
		return nil
	}},
	{name: "kill all nodes", run: func(c *Cluster) error {
		for _, node := range c.nodes {
			node.kill()
		}
		c.waitShort()
		return nil
	}},
	{name: "pause the primary for longer than its lease", run: func(c *Cluster) error {
		primary, _ := c.primary()
		if err := c.node(primary).pause(); err != nil {
			return err
		}
		c.wait(1100*time.Millisecond, 4500*time.Millisecond)
		return c.node(primary).resume()
	}},
	{name: "pause a follower", run: func(c *Cluster) error {
		_, followers := c.primary()
		if err := c.node(followers[0]).pause(); err != nil {
			return err
		}
		c.waitLong()
		return c.node(followers[0]).resume()
	}},
	{name: "pause one after the other, and the primary too soon", run: func(c *Cluster) error {
		for range 4 {
			host := 1 + c.random.Intn(len(c.nodes))
			if err := c.node(host).pause(); err != nil {
				return err
			}
			c.wait(300*time.Millisecond, 1600*time.Millisecond)
			if err := c.node(host).resume(); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "cut the primary from a follower", run: func(c *Cluster) error {
		primary, followers := c.primary()
		if err := c.network.cutBoth(primary, followers[0]); err != nil {
			return err
		}
		c.waitLong()
		return nil
	}},
	{name: "cut what the primary sends to a follower", run: func(c *Cluster) error {
		primary, followers := c.primary()
		if err := c.network.cut(primary, followers[0]); err != nil {
			return err
		}
		c.waitLong()
		return nil
	}},
	{name: "cut what the followers send to the primary", run: func(c *Cluster) error {
		primary, followers := c.primary()
		for _, host := range followers {
			if err := c.network.cut(host, primary); err != nil {
				return err
			}
		}
		c.wait(4500*time.Millisecond, 6500*time.Millisecond)
		return nil
	}},
	{name: "cut the primary from all followers, not from etcd", run: func(c *Cluster) error {
		primary, followers := c.primary()
		for _, host := range followers {
			if err := c.network.cutBoth(primary, host); err != nil {
				return err
			}
		}
		c.waitLong()
		return nil
	}},
	{name: "cut the primary from all but a client", run: func(c *Cluster) error {
		primary, followers := c.primary()
		for _, host := range followers {
			if err := c.network.cutBoth(primary, host); err != nil {
				return err
			}
		}
		if err := c.cutEtcd(primary); err != nil {
			return err
		}
		c.waitLong()
		return nil
	}},
	{name: "cut the primary from all followers, and stop it", run: func(c *Cluster) error {
		primary, followers := c.primary()
		for _, host := range followers {
			if err := c.network.cutBoth(primary, host); err != nil {
				return err
			}
		}
		c.waitLong()
		if err := c.network.heal(); err != nil {
			return err
		}
		began := now()
		err := c.node(primary).terminate()
		c.log("  n%d stopped within %d ms", primary, (now()-began)/1e6)
		return err
	}},
	{name: "cut the primary from etcd", run: func(c *Cluster) error {
		primary, _ := c.primary()
		if err := c.cutEtcd(primary); err != nil {
			return err
		}
		c.waitLong()
		return nil
	}},
	{name: "cut cables in turn", run: flap},
	{name: "storm", run: storm},
	{name: "storm, once more", run: storm},
	{name: "stop etcd", run: func(c *Cluster) error {
		for _, member := range c.etcd {
			member.kill()
		}
		c.waitLong()
		return nil
	}},
	{name: "pause most of etcd, and kill the primary", run: func(c *Cluster) error {
		for _, member := range c.etcd[:2] {
			if err := member.pause(); err != nil {
				return err
			}
		}
		c.waitShort()
		primary, _ := c.primary()
		c.node(primary).kill()
		c.waitLong()
		for _, member := range c.etcd[:2] {
			if err := member.resume(); err != nil {
				return err
			}
		}
		c.waitLong()
		return nil
	}},
	{name: "slow cables", run: func(c *Cluster) error {
		host := 1 + c.random.Intn(len(c.nodes))
		if err := c.network.slowDown(host); err != nil {
			return err
		}
		c.waitLong()
		return nil
	}},
	{name: "a follower's disk is full", nodes: 3, run: func(c *Cluster) error {
		primary, followers := c.primary()
		if primary == fullDiskNode {
			if err := c.switchTo(followers[0]); err != nil {
				return err
			}
		}
		return c.fullDisk()
	}},
	{name: "the primary's disk is full", nodes: 3, run: func(c *Cluster) error {
		if err := c.switchTo(fullDiskNode); err != nil {
			return err
		}
		return c.fullDisk()
	}},
	{name: "a disk is lost", run: func(c *Cluster) error {
		host := 1 + c.random.Intn(len(c.nodes))
		c.node(host).kill()
		c.wait(100*time.Millisecond, 2500*time.Millisecond)
		if err := c.node(host).wipe(); err != nil {
			return err
		}
		if err := c.node(host).start(); err != nil {
			return err
		}
		c.waitLong()
		return nil
	}},
	{name: "planned switches in a row", run: func(c *Cluster) error {
		for range 8 {
			_, followers := c.primary()
			if err := c.switchTo(followers[0]); err != nil {
				return err
			}
			c.wait(0, 400*time.Millisecond)
		}
		return nil
	}},
	{name: "planned switches, and the old primary is killed", run: func(c *Cluster) error {
		for range 2 {
			primary, followers := c.primary()
			done := make(chan struct{})
			go func() { // its outcome is open: who was to give way dies meanwhile
				c.client.request(primary-1, "POST", "/v1/cluster/switchover",
					map[string]string{"to": c.node(followers[0]).name}, nil)
				close(done)
			}()
			c.wait(0, 30*time.Millisecond)
			c.node(primary).kill()
			<-done
			c.wait(2000*time.Millisecond, 2500*time.Millisecond)
			if err := c.node(primary).start(); err != nil {
				return err
			}
			if err := c.settle(); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "restart all nodes, one after the other", run: func(c *Cluster) error {
		for _, node := range c.nodes {
			if err := node.with(nil, nil); err != nil {
				return err
			}
			if err := c.settle(); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "a clock that runs 10 % fast", library: true, run: func(c *Cluster) error { return c.clockRate("1.10") }},
	{name: "a clock that runs 10 % slow", library: true, run: func(c *Cluster) error { return c.clockRate("0.90") }},
	{name: "kill a primary with a guardian", run: func(c *Cluster) error {
		primary, _ := c.primary()
		if err := c.node(primary).with([]string{"--guardian"}, nil); err != nil {
			return err
		}
		if err := c.settle(); err != nil {
			return err
		}
		if err := c.switchTo(primary); err != nil {
			return err
		}
		c.waitShort()
		if err := c.node(primary).killChild(); err != nil {
			return err
		}
		c.waitLong()
		return nil
	}},
}

func (c *Cluster) cutEtcd(host int) error {
	for member := range c.etcd {
		if err := c.network.cutBoth(host, etcdHost+member); err != nil {
			return err
		}
	}
	return nil
}

// flap cuts one cable after the other in a direction, two at once at most.
func flap(c *Cluster) error {
	type pair struct{ from, to int }
	var last pair
	for range 12 {
		next := pair{1 + c.random.Intn(len(c.nodes)), 1 + c.random.Intn(len(c.nodes))}
		if c.random.Intn(4) == 0 {
			next.to = etcdHost + c.random.Intn(len(c.etcd))
		}
		if next.from == next.to {
			continue
		}
		if err := c.network.cut(next.from, next.to); err != nil {
			return err
		}
		if last != next && last.from != 0 {
			if err := c.network.mend(last.from, last.to); err != nil {
				return err
			}
		}
		last = next
		c.wait(200*time.Millisecond, 900*time.Millisecond)
	}
	return nil
}

func (c *Cluster) fullDisk() error {
	if err := c.fillDisk(); err != nil {
		return err
	}
	c.waitLong()
	if err := c.emptyDisk(); err != nil {
		return err
	}
	c.waitShort()
	return nil
}

// clockRate starts one node with a clock of another rate, makes it primary, and then takes its cables and those of a
// follower away for a while: leases and graces are what clocks are for.
func (c *Cluster) clockRate(rate string) error {
	host := 1 + c.random.Intn(len(c.nodes))
	environment := []string{"LD_PRELOAD=" + os.Getenv("OFFPRINT_FAKETIME"), "FAKETIME=+0 x" + rate}
	if err := c.node(host).with(nil, environment); err != nil {
		return err
	}
	if err := c.settle(); err != nil {
		return fmt.Errorf("with a clock of rate %s: %w", rate, err)
	}
	if c.random.Intn(2) == 0 {
		if err := c.switchTo(host); err != nil {
			return err
		}
	}
	primary, followers := c.primary()
	for _, other := range followers {
		if err := c.network.cutBoth(primary, other); err != nil {
			return err
		}
	}
	c.waitLong()
	return nil
}
