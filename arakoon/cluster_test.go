package arakoon

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/internal/disk/crashdisk"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// network brings the messages of a group in one process to their members at once, unless
// something is cut.
type network struct {
	mu    sync.Mutex
	nodes map[uint64]*Node
	cut   map[[2]uint64]bool // from, to
	drop  func(from uint64, m *pb.Message) bool
	sent  map[pb.MessageType]int
}

// port is the Transport of a member.
type port struct {
	net  *network
	from uint64
}

func (p port) Send(messages []*pb.Message) {
	for _, m := range messages {
		p.net.mu.Lock()
		to := p.net.nodes[m.GetTo()]
		// A machine whose power was cut sends nothing of what it stored behind that moment.
		lost := p.net.nodes[p.from] == nil || p.net.cut[[2]uint64{p.from, m.GetTo()}] || p.net.drop != nil && p.net.drop(p.from, m)
		p.net.sent[m.GetType()]++
		p.net.mu.Unlock()
		if to != nil && !lost {
			_ = to.Step(proto.Clone(m).(*pb.Message))
		}
	}
}

// cluster is a group in one process, in a bubble of synctest.
type cluster struct {
	t      *testing.T
	net    *network
	disks  map[uint64]*crashdisk.FS
	change func(id uint64, o *Options) // of the options of a member
}

func newCluster(t *testing.T) *cluster {
	return &cluster{t: t, net: &network{nodes: map[uint64]*Node{}, cut: map[[2]uint64]bool{}, sent: map[pb.MessageType]int{}}, disks: map[uint64]*crashdisk.FS{}}
}

// inBubble runs a test with a clock that stands still while anything can go on.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func (c *cluster) options(id uint64) Options {
	o := testOptions(c.disks[id])
	o.Member, o.Transport, o.Joining = id, port{c.net, id}, id != 1
	o.SegmentBytes, o.MemTableBytes = 256<<10, 1<<20
	o.CompactBytes = 1 << 30 // a member that needs a snapshot is another test's
	if c.change != nil {
		c.change(id, &o)
	}
	return o
}

// start opens a member, on the disk that it has or a new one.
func (c *cluster) start(id uint64) *Node {
	c.t.Helper()
	n, err := c.open(id)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

func (c *cluster) open(id uint64) (*Node, error) {
	if c.disks[id] == nil {
		c.disks[id] = crashdisk.New()
	}
	n, err := Open(c.options(id))
	if err != nil {
		return nil, err
	}
	c.t.Cleanup(func() { _ = n.Close() })
	c.net.mu.Lock()
	c.net.nodes[id] = n
	c.net.mu.Unlock()
	return n, nil
}

func (c *cluster) node(id uint64) *Node {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	return c.net.nodes[id]
}

// kill ends a member as a kill of its process or a power cut does; what its disk holds
// then is the one that it starts with.
func (c *cluster) kill(id uint64, after func(d *crashdisk.FS) *crashdisk.FS) {
	n := c.node(id)
	c.net.mu.Lock()
	delete(c.net.nodes, id)
	c.net.mu.Unlock()
	c.disks[id] = after(c.disks[id])
	_ = n.Close()
}

func killed(d *crashdisk.FS) *crashdisk.FS { return d.Kill() }

// cutOff cuts members off from all others, both ways; nothing cuts nobody.
func (c *cluster) cutOff(ids ...uint64) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	clear(c.net.cut)
	for _, a := range ids {
		for b := range uint64(20) {
			if !slices.Contains(ids, b) {
				c.net.cut[[2]uint64{a, b}], c.net.cut[[2]uint64{b, a}] = true, true
			}
		}
	}
}

// until waits until something holds, for a minute of the bubble's time.
func (c *cluster) until(what string, holds func() bool) {
	c.t.Helper()
	for range 6000 {
		synctest.Wait()
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, id := range slices.Collect(mapKeys(c.net)) {
		c.t.Logf("member %d: %+v, %v", id, c.node(id).Status(), c.node(id).Err())
	}
	c.t.Fatalf("never came: %s", what)
}

// leader waits until one of the members leads that are among ids, all if there are none.
func (c *cluster) leader(ids ...uint64) *Node {
	c.t.Helper()
	var found *Node
	c.until("a leader", func() bool {
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		for id, n := range c.net.nodes {
			if n.Leading() && (len(ids) == 0 || slices.Contains(ids, id)) {
				found = n
				return true
			}
		}
		return false
	})
	return found
}

// grow makes a group of members 1 to n, all voters.
func (c *cluster) grow(n uint64) {
	c.t.Helper()
	first := c.start(1)
	var ids []uint64
	for id := uint64(2); id <= n; id++ {
		c.start(id)
		ids = append(ids, id)
	}
	ctx := c.t.Context()
	if err := first.AddLearner(ctx, ids...); err != nil {
		c.t.Fatal(err)
	}
	c.promote(first, ids...)
}

func (c *cluster) promote(n *Node, ids ...uint64) {
	c.t.Helper()
	c.until("promotion", func() bool {
		err := n.Promote(c.t.Context(), ids...)
		if err != nil && !errors.Is(err, ErrNotCaughtUp) {
			c.t.Fatal(err)
		}
		return err == nil
	})
}

// remove has whoever leads remove members, once or twice: a leader that is to go says so.
func (c *cluster) remove(ids ...uint64) {
	c.t.Helper()
	n := c.leader()
	err := n.Remove(c.t.Context(), ids...)
	var other *NotLeaderError
	if errors.As(err, &other) && slices.Contains(ids, n.opt.Member) {
		err = c.leader(other.Leader).Remove(c.t.Context(), ids...)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// same checks that all members come to hold a key.
func (c *cluster) same(key, value string) {
	c.t.Helper()
	for _, id := range slices.Collect(mapKeys(c.net)) {
		n := c.node(id)
		c.until(fmt.Sprintf("member %d holds %s", id, key), func() bool {
			got, err := n.Get(c.t.Context(), Local, []byte(key))
			return err == nil && string(got) == value
		})
	}
}

func mapKeys(n *network) func(func(uint64) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var ids []uint64
	for id := range n.nodes {
		ids = append(ids, id)
	}
	return slices.Values(ids)
}

// Three members elect, replicate, and go on when the one that leads is killed. Half of the
// times the next write is answered within twice the longest time to an election.
func TestThreeMembers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		n := c.leader()
		set(t, n, "a", "1")
		c.same("a", "1")
		var took []time.Duration
		for range 21 {
			lead := n.opt.Member
			c.kill(lead, killed)
			began := time.Now()
			n = c.leader()
			set(t, n, "a", "2")
			took = append(took, time.Since(began))
			c.start(lead)
			c.same("a", "2")
			n = c.leader()
			has(t, n, "a", "2")
			set(t, n, "a", "1")
		}
		slices.Sort(took)
		t.Logf("the next write after a kill: median %v, longest %v", took[len(took)/2], took[len(took)-1])
		if half := took[len(took)/2]; half > 2*800*time.Millisecond {
			t.Errorf("half of the times more than %v until the next write", half)
		}
	})
}
