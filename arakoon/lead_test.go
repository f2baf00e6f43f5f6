package arakoon

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/faultdisk"
)

func TestTransfer(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		n := c.leader()
		ctx := t.Context()
		lead := n.opt.Member
		a, b := 1+lead%3, 1+(lead+1)%3
		if err := n.Transfer(ctx, a); err != nil {
			t.Fatal(err)
		}
		if n = c.leader(); n.opt.Member != a {
			t.Fatalf("member %d leads", n.opt.Member)
		}
		if err := c.node(lead).Transfer(ctx, a); !errors.Is(err, ErrNotLeader) {
			t.Error(err)
		}
		if err := n.Transfer(ctx, 9); !errors.Is(err, ErrTransfer) {
			t.Error(err)
		}
		c.cutOff(b)
		time.Sleep(2 * time.Second)
		if err := n.Transfer(ctx, b); !errors.Is(err, ErrNotCaughtUp) {
			t.Error(err)
		}
		if err := n.Transfer(ctx, 0); err != nil { // to the one that is there
			t.Fatal(err)
		}
		if n = c.leader(); n.opt.Member != lead {
			t.Fatalf("member %d leads", n.opt.Member)
		}
		// A member that does not take over: this one leads on.
		c.net.mu.Lock()
		c.net.drop = func(_ uint64, m *pb.Message) bool { return m.GetType() == pb.MsgTimeoutNow }
		c.net.mu.Unlock()
		if err := n.Transfer(ctx, a); !errors.Is(err, ErrTransfer) || !n.Leading() {
			t.Error(err)
		}
		set(t, n, "a", "1")
	})
}

// A preferred master gets the lead when it has been there for a while, and of forced ones
// no other leads.
func TestPreferredMaster(t *testing.T) {
	for _, forced := range []bool{false, true} {
		inBubble(t, func(t *testing.T) {
			c := newCluster(t)
			c.grow(3)
			// What the preferred master lacks, others have to bring it.
			c.cutOff(3)
			set(t, c.leader(1, 2), "a", "0")
			c.cutOff()
			for id := range uint64(3) {
				c.kill(id+1, killed)
			}
			c.change = func(_ uint64, o *Options) { o.Preferred, o.Forced = []uint64{3}, forced }
			c.start(1)
			c.start(2)
			if forced {
				time.Sleep(20 * time.Second)
				for id := range uint64(2) {
					if c.node(id + 1).Leading() {
						t.Errorf("member %d leads, which is not the forced master", id+1)
					}
					if _, err := c.node(id+1).Do(t.Context(), new(Sequence).Set([]byte("a"), []byte("3"))); !errors.Is(err, ErrNotLeader) {
						t.Errorf("member %d: %v", id+1, err)
					}
					if _, err := c.node(id+1).Get(t.Context(), Consistent, []byte("a")); !errors.Is(err, ErrNotLeader) {
						t.Errorf("member %d: %v", id+1, err)
					}
				}
			} else {
				set(t, c.leader(), "a", "1")
			}
			c.start(3)
			c.until("the preferred master leads", func() bool {
				if forced && (c.node(1).Leading() || c.node(2).Leading()) {
					t.Fatal("another one than the forced master leads")
				}
				return c.node(3).Leading()
			})
			set(t, c.node(3), "a", "2")
			c.same("a", "2")
		})
	}
}

func TestPreference(t *testing.T) {
	var p preference
	gave := func(from, to, candidate uint64) (ticks []uint64) {
		for tick := from; tick < to; tick++ {
			if p.look(tick, candidate) {
				ticks = append(ticks, tick)
			}
		}
		return ticks
	}
	if got := gave(0, preferAfter, 3); got != nil {
		t.Fatalf("given at once: %v", got)
	}
	p.none() // it went away: the wait begins anew
	if got := gave(preferAfter, 2*preferAfter, 3); got != nil {
		t.Fatal(got)
	}
	got := gave(2*preferAfter, 8000, 3)
	want := []uint64{160, 360, 760, 1560, 3160, 6360}
	if !slices.Equal(got, want) {
		t.Errorf("tried at %v, not %v", got, want)
	}
	if got := gave(8000, 160000, 3); got[len(got)-1]-got[len(got)-2] != preferAtMost {
		t.Errorf("the wait grows to %d", got[len(got)-1]-got[len(got)-2])
	}
	// Where the master kept the lead for long the next try is as the first.
	p.none()
	if got := gave(400000, 400400, 3); !slices.Equal(got, []uint64{400080, 400280}) {
		t.Error(got)
	}
}

// A leader whose disk does not answer gives the lead away; where nobody can take it at that
// moment it falls silent, so that the others elect another one; and when the disk answers
// it is a member as before.
func TestStalledDisk(t *testing.T) {
	for name, refuse := range map[string]bool{"given": false, "taken": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				c := newCluster(t)
				faults := map[uint64]*faultdisk.FS{}
				c.change = func(id uint64, o *Options) {
					faults[id] = faultdisk.New(o.FS.(disk.FS))
					o.FS = faults[id]
				}
				c.grow(3)
				n := c.leader()
				lead := n.opt.Member
				set(t, n, "a", "1")
				c.net.mu.Lock()
				c.net.drop = func(_ uint64, m *pb.Message) bool { return refuse && m.GetType() == pb.MsgTimeoutNow }
				c.net.mu.Unlock()
				stop := make(chan struct{})
				wait := func(faultdisk.Op, string) { <-stop }
				faults[lead].Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "*.raft", Before: wait})
				faults[lead].Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "spare", Before: wait})
				done := make(chan error, 1)
				go func() {
					_, err := n.Do(t.Context(), new(Sequence).Set([]byte("a"), []byte("2")))
					done <- err
				}()
				synctest.Wait()
				c.until("another one leads", func() bool {
					m := c.node(1 + lead%3)
					o := c.node(1 + (lead+1)%3)
					return (m.Leading() || o.Leading()) && !n.Leading()
				})
				<-done // the others committed it, or it is not known
				next := c.leader(1+lead%3, 1+(lead+1)%3)
				set(t, next, "a", "3")
				close(stop)
				c.same("a", "3")
			})
		})
	}
}
