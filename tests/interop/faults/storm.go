package faults

import (
	"fmt"
	"time"
)

// storm breaks and mends one thing after the other for a while, whatever is broken already. Disks stay, so that nothing
// acknowledged may be lost.
func storm(c *Cluster) error {
	end := time.Now().Add(time.Duration(6+c.random.Intn(5)) * time.Second)
	for time.Now().Before(end) {
		if err := c.strike(1 + c.random.Intn(len(c.nodes))); err != nil {
			return err
		}
		c.wait(50*time.Millisecond, 900*time.Millisecond)
	}
	return nil
}

// strike does one thing to a node, or to what belongs to it. Of one that is paused or dead, that ends first.
func (c *Cluster) strike(host int) error {
	node := c.node(host)
	switch {
	case node.paused:
		c.log("  %s goes on", node.name)
		return node.resume()
	case !node.running():
		c.log("  %s starts", node.name)
		return node.start()
	}
	other := 1 + c.random.Intn(len(c.nodes))
	member := c.etcd[c.random.Intn(len(c.etcd))]
	switch c.random.Intn(8) {
	case 0, 1:
		c.log("  %s is killed", node.name)
		node.kill()
	case 2:
		c.log("  %s is paused", node.name)
		return node.pause()
	case 3:
		if other != host {
			c.log("  %s is cut from %s", node.name, c.node(other).name)
			return c.network.cut(host, other)
		}
	case 4:
		c.log("  %s is cut from etcd", node.name)
		return c.cutEtcd(host)
	case 5:
		c.log("  all cables are mended")
		return c.network.heal()
	case 6:
		if member.running() {
			c.log("  %s is killed", member.name)
			member.kill()
			return nil
		}
		c.log("  %s starts", member.name)
		return member.start()
	case 7: // it may be refused, or never answered
		c.log("  %s is to be primary", node.name)
		go newClient(c.urls(), "", 1).request(other-1, "POST", "/v1/cluster/switchover",
			map[string]string{"to": fmt.Sprintf("n%d", host)}, nil)
	}
	return nil
}
