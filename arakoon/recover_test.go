package arakoon

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"openvstorage/arakoon/raftlog"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	pb "go.etcd.io/raft/v3/raftpb"
)

// recovered makes a member the only one in another life, and opens it.
func (c *cluster) recovered(id, life uint64) *Node {
	c.t.Helper()
	opt := c.options(id)
	s, err := Recover(opt, life)
	if err != nil {
		c.t.Fatal(err)
	}
	if s.Life != life || !s.Alone() {
		c.t.Fatalf("recovered as %+v", s)
	}
	return c.reopened(id, life)
}

// reopened opens a member that was recovered, and checks that it is alone.
func (c *cluster) reopened(id, life uint64) *Node {
	c.t.Helper()
	change := c.change
	c.change = func(id uint64, o *Options) {
		if change != nil {
			change(id, o)
		}
		o.Life = life
	}
	n := c.start(id)
	c.leader(id)
	c.until("the tail is applied", func() bool { return slices.Equal(n.Members().Voters, []uint64{id}) })
	if m := n.Members(); !(Survivor{Member: id, Members: m}).Alone() {
		c.t.Fatalf("after the recovery: %v", m)
	}
	return n
}

// with has a group of a voter, member 1, and a learner, member 2.
func withLearner(t *testing.T) *cluster {
	c := newCluster(t)
	first := c.start(1)
	c.start(2)
	if err := first.AddLearner(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	return c
}

// A learner, the voter of which is gone, goes on alone with all that it holds, in a later life;
// its old numbers are not taken again, and a third host makes it a cluster again.
func TestRecoverLearner(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := withLearner(t)
		for i := range 100 {
			set(t, c.node(1), fmt.Sprint(i), "x")
		}
		c.until("the learner has it", func() bool { return c.node(2).Applied() == c.node(1).Applied() })
		c.kill(1, killed)
		c.kill(2, killed)
		before, err := Survey(c.options(2))
		if err != nil || before.Life != 0 || !slices.Equal(before.Members.Learners, []uint64{2}) {
			t.Fatalf("%+v, %v", before, err)
		}
		n := c.recovered(2, 5)
		for i := range 100 {
			has(t, n, fmt.Sprint(i), "x")
		}
		if again, err := Survey(func() Options { o := c.options(2); o.Dir = "/else"; return o }()); !errors.Is(err, ErrMissing) {
			t.Errorf("of nothing: %+v, %v", again, err)
		}
		if err := n.AddLearner(t.Context(), 1); !errors.Is(err, ErrUsed) {
			t.Errorf("the lost member is taken again: %v", err)
		}
		c.start(3)
		c.start(4)
		if err := n.AddLearner(t.Context(), 3, 4); err != nil {
			t.Fatal(err)
		}
		c.promote(n, 3, 4)
		set(t, n, "0", "y")
		c.same("0", "y")
	})
}

// What a voter holds without knowing that it was committed is kept: it may have been answered.
// Of a minority of three it is done too, in a joint change as well.
func TestRecoverKeepsTheTail(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		lead := c.leader()
		id := lead.opt.Member
		c.cutOff(id)
		for i := range 10 { // they reach its log alone
			go func() { _, _ = lead.Do(t.Context(), new(Sequence).Set([]byte(fmt.Sprint(i)), []byte("x"))) }()
		}
		last := func() uint64 { i, _ := lead.log.LastIndex(); return i }
		c.until("the log has them", func() bool { return last() >= lead.Applied()+10 })
		c.kill(id, killed)
		s, err := Survey(c.options(id))
		if err != nil || s.Last < s.Committed+10 {
			t.Fatalf("%+v, %v", s, err)
		}
		for other := range c.net.nodes {
			c.kill(other, killed)
		}
		n := c.recovered(id, 1)
		for i := range 10 {
			has(t, n, fmt.Sprint(i), "x")
		}
	})
}

// A power cut at any operation of a recovery leaves a member of the old life, with its old
// members, or one of the new life that is alone; never something between. Taken again, it ends.
func TestRecoverIsAtomic(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := withLearner(t)
		for i := range 20 {
			set(t, c.node(1), fmt.Sprint(i), "x")
		}
		c.until("the learner has it", func() bool { return c.node(2).Applied() == c.node(1).Applied() })
		c.kill(1, killed)
		c.kill(2, killed)
		start, cuts, olds := c.disks[2], 0, 0
		for at, ended := 0, false; !ended; at++ {
			under := start.Kill()
			faulty := faultdisk.New(under)
			var images []*crashdisk.FS
			rng := rand.New(rand.NewPCG(uint64(at), 1))
			cut := faulty.Inject(faultdisk.Rule{
				Ops:  faultdisk.Write | faultdisk.Datasync | faultdisk.Rename | faultdisk.Remove | faultdisk.SyncDir,
				Skip: at, Times: 1,
				Before: func(faultdisk.Op, string) {
					for _, mode := range []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn} {
						images = append(images, under.Crash(rng, mode))
					}
				},
			})
			opt := c.options(2)
			opt.FS = faulty
			if _, err := Recover(opt, 1); err != nil {
				t.Fatal(err)
			}
			ended = cut.Fired() == 0
			images = append(images, under.Crash(rng, crashdisk.LoseAll))
			for i, image := range images {
				cuts++
				opt.FS = image
				s, err := Survey(opt)
				if err != nil {
					t.Fatalf("cut at %d: %v", at, err)
				}
				old := s.Life == 0 && slices.Equal(s.Members.Voters, []uint64{1}) && slices.Equal(s.Members.Learners, []uint64{2})
				if now := s.Life == 1 && s.Alone() && s.Committed == s.Last; !old && !now {
					t.Fatalf("cut at %d: %+v", at, s)
				} else if i == len(images)-1 && !now {
					t.Fatalf("a recovery that had ended is gone after a power cut: %+v", s)
				}
				if old {
					olds++
				}
				if s, err := Recover(opt, 1); err != nil || s.Life != 1 || !s.Alone() {
					t.Fatalf("cut at %d, taken again: %+v, %v", at, s, err)
				}
				c.disks[2] = image
				c.checkAlone(2, 20)
			}
		}
		if cuts < 15 || olds == 0 || olds == cuts {
			t.Errorf("%d power cuts, %d with the old member", cuts, olds)
		}
	})
}

// checkAlone opens a member that was recovered, checks what it holds, and closes it.
func (c *cluster) checkAlone(id uint64, keys int) {
	c.t.Helper()
	c.change = nil
	n := c.reopened(id, 1)
	for i := range keys {
		has(c.t, n, fmt.Sprint(i), "x")
	}
	c.kill(id, killed)
}

// A member of a later life is not opened for an older one, nor recovered as one; and there is
// nothing to recover from a member that was removed, or has heard from nobody.
func TestRecoverRefuses(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := withLearner(t)
		set(t, c.node(1), "a", "1")
		c.start(3)
		c.until("the learner has it", func() bool { return c.node(2).Applied() == c.node(1).Applied() })
		if err := c.node(1).Remove(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		for id := range uint64(3) {
			c.kill(id+1, killed)
		}
		if _, err := Recover(c.options(3), 1); !errors.Is(err, ErrNoMember) {
			t.Errorf("it never heard of anybody: %v", err)
		}
		n := c.recovered(1, 2)
		has(t, n, "a", "1")
		c.kill(1, killed)
		for life := range uint64(3) {
			_, err := Recover(c.options(1), life)
			if life < 2 && !errors.Is(err, ErrLife) || life == 2 && err != nil {
				t.Errorf("life %d: %v", life, err)
			}
		}
		old := c.options(1)
		old.Life = 1
		if _, err := Open(old); !errors.Is(err, raftlog.ErrIdentity) {
			t.Errorf("opened for an older life: %v", err)
		}
	})
}

// Whatever the members are at the end of a log, also in a joint change, a recovery leaves one.
func TestRenewalOfAnyMembers(t *testing.T) {
	for _, conf := range []*pb.ConfState{
		{Voters: []uint64{2}},
		{Voters: []uint64{1}, Learners: []uint64{2}},
		{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}},
		{Voters: []uint64{1, 2, 3, 4, 5}},
		{Voters: []uint64{1, 2, 3}, VotersOutgoing: []uint64{1}, AutoLeave: new(true)},
		{Voters: []uint64{1}, VotersOutgoing: []uint64{1, 2, 3}, LearnersNext: []uint64{2}, AutoLeave: new(true)},
	} {
		n := open(t, testOptions(crashdisk.New()))
		r, err := n.renewal(Survivor{Member: 2, Last: 10, Term: 3}, conf)
		if err != nil {
			t.Fatalf("%v: %v", conf, err)
		}
		for i, e := range r.Entries {
			if e.GetIndex() != 11+uint64(i) || e.GetTerm() != r.HardState.GetTerm() || e.GetTerm() <= 3 {
				t.Errorf("entry %d: %v", i, e)
			}
			if conf, err = afterChange(conf, e); err != nil {
				t.Fatal(err)
			}
		}
		if !alone(conf, 2) || r.HardState.GetCommit() != 10+uint64(len(r.Entries)) {
			t.Errorf("%v, %v", conf, r.HardState)
		}
	}
}
