package kvclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/arakoon/kv/kvtest"
	"openvstorage/internal/disk/crashdisk"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// election is the longest that an election takes.
const election = 800 * time.Millisecond

// cluster is a group of several members in a bubble of synctest, with a host for each.
type cluster struct {
	t     *testing.T
	mu    sync.Mutex
	nodes map[uint64]*arakoon.Node
	cut   uint64 // a member that hears from no other one, and no other one from it
	hosts []*host
}

type port struct {
	c    *cluster
	from uint64
}

func (p port) Send(messages []*pb.Message) {
	for _, m := range messages {
		p.c.mu.Lock()
		to, cut := p.c.nodes[m.GetTo()], p.c.cut == p.from || p.c.cut == m.GetTo()
		p.c.mu.Unlock()
		if to != nil && !cut {
			_ = to.Step(proto.Clone(m).(*pb.Message))
		}
	}
}

func newCluster(t *testing.T, members uint64, change ...func(id uint64, o *arakoon.Options)) *cluster {
	c := &cluster{t: t, nodes: map[uint64]*arakoon.Node{}}
	var others []uint64
	for id := uint64(1); id <= members; id++ {
		o := arakoon.Options{
			FS: crashdisk.New(), Dir: "/node", Cluster: testCluster, Member: id, Joining: id != 1, Transport: port{c, id}, Functions: kvtest.Functions,
			SegmentBytes: 1 << 20, MemTableBytes: 1 << 20, StateCacheBytes: 1 << 20,
		}
		for _, fn := range change {
			fn(id, &o)
		}
		n, err := arakoon.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		c.mu.Lock()
		c.nodes[id] = n
		c.mu.Unlock()
		if id > 1 {
			others = append(others, id)
		}
		c.hosts = append(c.hosts, newPipeHost(t, id, n, kv.Options{}))
	}
	first := c.nodes[1]
	if err := first.AddLearner(t.Context(), others...); err != nil {
		t.Fatal(err)
	}
	c.until("all vote", func() bool {
		err := first.Promote(t.Context(), others...)
		if err != nil && !errors.Is(err, arakoon.ErrNotCaughtUp) {
			t.Fatal(err)
		}
		return err == nil
	})
	return c
}

func (c *cluster) until(what string, holds func() bool) {
	c.t.Helper()
	for range 600 {
		synctest.Wait()
		if holds() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.t.Fatalf("never came: %s", what)
}

// leader waits until a member leads that is not cut off.
func (c *cluster) leader() (id uint64) {
	c.t.Helper()
	c.until("a leader", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, n := range c.nodes {
			if n.Leading() && i != c.cut {
				id = i
				return true
			}
		}
		return false
	})
	return id
}

// kill ends a member as the end of its process does.
func (c *cluster) kill(id uint64) {
	c.mu.Lock()
	n := c.nodes[id]
	delete(c.nodes, id)
	c.mu.Unlock()
	h := c.hosts[id-1]
	h.setNode(nil)
	h.down()
	_ = n.Close()
}

func (c *cluster) cutOff(id uint64) {
	c.mu.Lock()
	c.cut = id
	c.mu.Unlock()
}

func one() []byte { return binary.BigEndian.AppendUint64(nil, 1) }

func sum(t *testing.T, s kvtest.Store) uint64 {
	t.Helper()
	got, err := s.Get(t.Context(), arakoon.Consistent, b("sum"))
	if err != nil {
		t.Fatal(err)
	}
	return binary.BigEndian.Uint64(got)
}

// A client goes on when the leader is killed: the next answer comes within twice an
// election's time, and each of its writes is done once.
func TestGoesOnWhenTheMasterDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		client := newClient(t, Options{}, c.hosts...)
		var answered, failed atomic.Uint64
		stop := make(chan struct{})
		var writers sync.WaitGroup
		for range 8 {
			writers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := client.Call(t.Context(), "add", 1, one()); err != nil {
						t.Error(err)
						failed.Add(1)
						return
					}
					answered.Add(1)
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		var took []time.Duration
		time.Sleep(200 * time.Millisecond)
		before := answered.Load()
		if before == 0 {
			t.Fatal("nothing was answered")
		}
		c.kill(c.leader())
		began := time.Now()
		c.until("an answer", func() bool { return answered.Load() > before+8 })
		took = append(took, time.Since(began))
		close(stop)
		writers.Wait()
		if took[0] > 2*election {
			t.Errorf("the next answer came after %v", took)
		}
		if got := sum(t, client); got != answered.Load() || failed.Load() > 0 {
			t.Errorf("%d were answered, %d failed, and the sum is %d", answered.Load(), failed.Load(), got)
		}
		if leader, err := client.WhoMaster(t.Context()); err != nil || leader != c.leader() {
			t.Errorf("member %d leads, %v", leader, err)
		}
	})
}

// A leader that the others do not hear any more, and that the client still reaches, does not
// keep it waiting, and gives it no old answers.
func TestALeaderThatIsCutOffKeepsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		client := newClient(t, Options{}, c.hosts...)
		if _, err := client.Set(t.Context(), b("k"), b("1")); err != nil {
			t.Fatal(err)
		}
		old := c.leader()
		c.cutOff(old)
		c.leader()
		began := time.Now()
		// The old one knows of no leader by now, and keeps consistent reads until it does.
		ctx, stop := context.WithTimeout(t.Context(), 5*election)
		defer stop()
		if got, err := client.Get(ctx, arakoon.Consistent, b("k")); err != nil || string(got) != "1" {
			t.Fatalf("%q, %v", got, err)
		}
		if _, err := client.Set(t.Context(), b("k"), b("2")); err != nil {
			t.Fatal(err)
		}
		if got, err := client.Get(t.Context(), arakoon.Consistent, b("k")); err != nil || string(got) != "2" {
			t.Errorf("%q, %v", got, err)
		}
		if took := time.Since(began); took > 5*election {
			t.Errorf("it took %v", took)
		}
		if got, err := c.nodes[old].Get(t.Context(), arakoon.Local, b("k")); err != nil || string(got) != "1" {
			t.Errorf("the member that is cut off has %q, %v", got, err)
		}
		// What must be seen at least is not seen there: another member is asked.
		near := newClient(t, Options{Members: func() []Member {
			return []Member{c.hosts[old-1].member(), c.hosts[old%3].member(), c.hosts[(old+1)%3].member()}
		}})
		revision, err := client.Set(t.Context(), b("k"), b("3"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := near.Get(t.Context(), arakoon.AtLeast(revision), b("k")); err != nil || string(got) != "3" {
			t.Errorf("at least revision %d: %q, %v", revision, got, err)
		}
		if got, seen, err := near.GetSeen(t.Context(), arakoon.Local, b("k")); err != nil || string(got) != "1" || seen.Revision >= revision {
			t.Errorf("local at the nearest: %q as of %d, %v", got, seen.Revision, err)
		}
		c.kill(old)
		if got, err := near.Get(t.Context(), arakoon.Local, b("k")); err != nil || string(got) != "3" {
			t.Errorf("local when the nearest is gone: %q, %v", got, err)
		}
	})
}

// A member that has lost the lead, and does not answer, keeps nobody either.
func TestAMemberThatHangsKeepsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		client := newClient(t, Options{}, c.hosts...)
		if _, err := client.Set(t.Context(), b("k"), b("1")); err != nil {
			t.Fatal(err)
		}
		old := c.leader()
		gate := make(chan struct{})
		c.hosts[old-1].hang.Store(&gate)
		defer close(gate)
		c.until("another leads", func() bool { return c.nodes[old].Transfer(t.Context(), 0) == nil })
		ctx, stop := context.WithTimeout(t.Context(), 5*election)
		defer stop()
		if got, err := client.Get(ctx, arakoon.Consistent, b("k")); err != nil || string(got) != "1" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// The nearest member has a connection and does not answer: the next one does.
func TestTheNearestMemberThatHangsKeepsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		client := newClient(t, Options{}, c.hosts...)
		revision, err := client.Set(t.Context(), b("k"), b("1"))
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range c.hosts { // there are connections to all
			if _, err := client.Status(t.Context(), h.id); err != nil {
				t.Fatal(err)
			}
		}
		gate := make(chan struct{})
		c.hosts[0].hang.Store(&gate)
		defer close(gate)
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
		defer stop()
		if got, err := client.Get(ctx, arakoon.AtLeast(revision), b("k")); err != nil || string(got) != "1" {
			t.Errorf("%q, %v", got, err)
		}
		ctx, stop = context.WithTimeout(t.Context(), 2*watchWait)
		defer stop()
		enough := errors.New("enough")
		err = client.Watch(ctx, b("k"), revision, func(e arakoon.Events) error {
			if len(e.List) == 1 {
				return enough
			}
			return nil
		})
		if err != enough {
			t.Errorf("a watch: %v", err)
		}
	})
}

// The lead is given away on request, and a group without a majority says so.
func TestMasters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		client := newClient(t, Options{}, c.hosts...)
		old, err := client.WhoMaster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Nop(t.Context()); err != nil || !client.ExpectProgress(t.Context()) {
			t.Errorf("no progress: %v", err)
		}
		c.until("somebody else leads", func() bool {
			err := client.DropMaster(t.Context(), 0)
			if err != nil && !errors.Is(err, arakoon.ErrTransfer) {
				t.Fatal(err)
			}
			return err == nil
		})
		now, err := client.WhoMaster(t.Context())
		if err != nil || now == old {
			t.Errorf("member %d leads after %d, %v", now, old, err)
		}
		s, err := client.Status(t.Context(), now)
		if err != nil || !s.Leads || s.Leader != now || !slices.Equal(s.Voters, []uint64{1, 2, 3}) || len(s.Followers) != 3 || s.Failed || s.Term == 0 || s.Role != arakoon.RoleLeader {
			t.Errorf("%+v, %v", s, err)
		}
		if f, err := client.Statistics(t.Context(), now); err != nil || len(f.Ops) == 0 {
			t.Errorf("%+v, %v", f, err)
		}
		c.kill(old)
		c.kill(6 - old - now)
		ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
		defer stop()
		if client.ExpectProgress(ctx) {
			t.Error("one of three expects progress")
		}
		ctx, stop = context.WithTimeout(t.Context(), 3*time.Second)
		defer stop()
		if _, err := client.Set(ctx, b("k"), b("v")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a write without a majority: %v", err)
		}
		if _, err := client.Get(t.Context(), arakoon.Local, b("k")); err == nil {
			t.Error("a write without a majority is there")
		}
	})
}

// cutter is a connection that ends at chosen moments: before bytes leave, after they have
// left, or when an answer came.
type cutter struct {
	net.Conn
	f *faults
}

type faults struct {
	mu    sync.Mutex
	every int // of so many operations one ends the connection
	n     int
	cuts  int
}

func (f *faults) hit() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	if f.every == 0 || f.n%f.every != 0 {
		return false
	}
	f.cuts++
	return true
}

func (c cutter) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && c.f.hit() {
		c.Close()
		return 0, errors.New("the answer was lost")
	}
	return n, err
}

func (c cutter) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err == nil && c.f.hit() {
		c.Close()
	}
	return n, err
}

// Exactly once: whatever requests and answers are lost, and while the lead changes, the
// counter is the number of increments that were answered.
func TestEachWriteIsDoneOnce(t *testing.T) {
	for _, every := range []int{7, 13, 29} {
		t.Run(fmt.Sprint(every), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 3)
				f := &faults{every: every}
				for _, h := range c.hosts {
					h.wrap = func(c net.Conn) net.Conn { return cutter{c, f} }
				}
				client := newClient(t, Options{}, c.hosts...)
				const writers, each = 6, 15
				var answered atomic.Uint64
				var all sync.WaitGroup
				for range writers {
					all.Go(func() {
						for range each {
							if _, err := client.Call(t.Context(), "add", 1, one()); err != nil {
								t.Error(err)
								return
							}
							answered.Add(1)
						}
					})
				}
				for range 3 {
					time.Sleep(200 * time.Millisecond)
					_ = c.nodes[c.leader()].Transfer(t.Context(), 0)
				}
				all.Wait()
				f.mu.Lock()
				cuts := f.cuts
				f.every = 0
				f.mu.Unlock()
				if got := sum(t, client); got != answered.Load() || got != writers*each || cuts < 5 {
					t.Errorf("%d were answered, and the sum is %d; %d connections were cut", answered.Load(), got, cuts)
				}
			})
		})
	}
}

// Without a session the same is told instead: what was answered was done, and what failed
// with an error that does not say otherwise was not.
func TestWithoutSessionsLostAnswersAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		f := &faults{every: 5}
		c.hosts[0].wrap = func(c net.Conn) net.Conn { return cutter{c, f} }
		client := newClient(t, Options{Sessions: -1}, c.hosts...)
		answered, unknown := uint64(0), uint64(0)
		for range 60 {
			switch _, err := client.Call(t.Context(), "add", 1, one()); {
			case err == nil:
				answered++
			case errors.Is(err, arakoon.ErrUnknownOutcome):
				unknown++
			default:
				t.Error(err)
			}
		}
		if got := sum(t, c.nodes[1]); got < answered || got > answered+unknown || unknown == 0 {
			t.Errorf("%d were answered, of %d nobody knows, and the sum is %d", answered, unknown, got)
		}
	})
}
