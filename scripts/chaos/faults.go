package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"openvstorage/scripts/group"
)

// fault is one kind of harm. do does it and may return what ends it; where that is nil the
// harm is of one moment. An error is the driver's own failure.
type fault struct {
	name  string
	needs func(c *chaos) bool // nil: nothing
	do    func(c *chaos, victim *group.Member) (heal func() error, err error)
}

func networked(c *chaos) bool { return c.net != nil }
func mounted(c *chaos) bool   { return len(c.volumes) > 0 }

var faults = []fault{
	{"kill -9", nil, func(c *chaos, m *group.Member) (func() error, error) { c.kill(m); return nil, nil }},
	{"kill -9 of the leader", nil, func(c *chaos, _ *group.Member) (func() error, error) {
		if m := c.leader(); m != nil {
			c.kill(m)
		}
		return nil, nil
	}},
	{"kill -9 of all", nil, func(c *chaos, _ *group.Member) (func() error, error) {
		for _, m := range c.group.Members() {
			c.kill(m)
		}
		return nil, nil
	}},
	{"pause", nil, func(c *chaos, m *group.Member) (func() error, error) { return pause(m) }},
	{"pause of the leader", nil, func(c *chaos, m *group.Member) (func() error, error) {
		if l := c.leader(); l != nil {
			m = l
		}
		return pause(m)
	}},
	{"the lead is given away", nil, func(c *chaos, _ *group.Member) (func() error, error) {
		if m := c.leader(); m != nil {
			one, stop := context.WithTimeout(c.ctx, 2*time.Second)
			defer stop()
			_ = m.Call(one, "/transfer", nil, nil) // it may be refused
		}
		return nil, nil
	}},
	{"rolling restart", nil, (*chaos).rolling},
	{"replace", nil, (*chaos).replace},
	{"isolation", networked, func(c *chaos, m *group.Member) (func() error, error) { return c.net.isolate(m.ID) }},
	{"isolation of the leader", networked, func(c *chaos, m *group.Member) (func() error, error) {
		if l := c.leader(); l != nil {
			m = l
		}
		return c.net.isolate(m.ID)
	}},
	{"one way", networked, func(c *chaos, m *group.Member) (func() error, error) { return c.net.cut(m.ID, c.other(m).ID) }},
	{"two that do not hear each other", networked, func(c *chaos, m *group.Member) (func() error, error) {
		o := c.other(m)
		first, err := c.net.cut(m.ID, o.ID)
		if err != nil {
			return first, err
		}
		second, err := c.net.cut(o.ID, m.ID)
		return inTurn(first, second), err
	}},
	{"nobody hears the leader", networked, func(c *chaos, m *group.Member) (func() error, error) {
		// The clients still do: it must not answer them from the past.
		if l := c.leader(); l != nil {
			m = l
		}
		heal := func() error { return nil }
		for _, o := range c.group.Members() {
			if o == m {
				continue
			}
			next, err := c.net.cut(m.ID, o.ID)
			if err != nil {
				return heal, err
			}
			heal = inTurn(heal, next)
		}
		return heal, nil
	}},
	{"slow and lossy link", networked, func(c *chaos, m *group.Member) (func() error, error) { return c.net.slow(m.ID) }},
	{"disk hangs", mounted, func(c *chaos, m *group.Member) (func() error, error) { return c.volumes[m.ID].hang() }},
	{"slow disk", mounted, func(c *chaos, m *group.Member) (func() error, error) { return c.volumes[m.ID].slow(256 << 10) }},
	{"full disk", mounted, func(c *chaos, m *group.Member) (func() error, error) { return c.volumes[m.ID].fill() }},
}

func inTurn(first, second func() error) func() error {
	return func() error {
		if err := first(); err != nil {
			return err
		}
		return second()
	}
}

func pause(m *group.Member) (func() error, error) {
	p := m.Process()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	return func() error { return p.Signal(syscall.SIGCONT) }, nil
}

// kill ends a member as a power cut of its process does.
func (c *chaos) kill(m *group.Member) { m.Process().Kill() }

// leader is whoever leads, nil if nobody does just now.
func (c *chaos) leader() *group.Member {
	ctx, stop := context.WithTimeout(c.ctx, 2*time.Second)
	defer stop()
	m, err := c.group.Leader(ctx)
	if err != nil {
		return nil
	}
	return m
}

// other is another member than m.
func (c *chaos) other(m *group.Member) *group.Member {
	all := slices.DeleteFunc(c.group.Members(), func(o *group.Member) bool { return o == m })
	return all[c.rng.IntN(len(all))]
}

// whole brings the group back: all members run, one leads, and all have what it has.
func (c *chaos) whole() error {
	ctx, stop := context.WithTimeout(c.ctx, 2*time.Minute)
	defer stop()
	for _, m := range c.group.Members() {
		if err := c.revive(m); err != nil {
			return err
		}
	}
	c.group.Tell(ctx)
	for {
		l, err := c.group.Leader(ctx)
		if err != nil {
			return fmt.Errorf("all members run, nothing is broken any more, and %w", err)
		}
		want, err := l.Status(ctx)
		behind := err != nil
		var ids []uint64
		for _, m := range c.group.Members() {
			ids = append(ids, m.ID)
			s, err := m.Status(ctx)
			behind = behind || err != nil || s.Applied < want.Commit
			if err := c.revive(m); err != nil { // what the harm did to it may come out late
				return err
			}
		}
		if !behind && slices.Equal(want.Members.Voters, ids) && len(want.Members.Learners)+len(want.Members.Outgoing) == 0 {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("members %v run, nothing is broken any more, and they are not even: the leader says %+v", ids, want)
		}
	}
}

// revive starts a member that has ended, as its host would. A member may end by itself only
// when its disk was broken.
func (c *chaos) revive(m *group.Member) error {
	if m.Running() {
		return nil
	}
	if out := m.Process().Output(); endedByItself(out) {
		if c.disk {
			c.say("member %d ended: %s", m.ID, out)
		} else {
			c.r.violation("member %d ended by itself: %s", m.ID, out)
		}
	}
	return m.Start()
}

// endedByItself says whether a process printed why it ends. One that we kill prints nothing.
func endedByItself(output string) bool {
	return slices.ContainsFunc([]string{"member: ", "panic: ", "fatal error: ", "DATA RACE"}, func(word string) bool {
		return strings.Contains(output, word)
	})
}

// rolling stops and starts one member after another, as an upgrade does.
func (c *chaos) rolling(*group.Member) (func() error, error) {
	for _, m := range c.group.Members() {
		if err := m.Process().Stop(time.Minute); err != nil {
			c.r.violation("%v", err)
		}
		if err := c.whole(); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// replace wipes a member and puts one with a new number in its place: a learner first, then
// one change in which it votes and the old one does not.
func (c *chaos) replace(m *group.Member) (func() error, error) {
	c.kill(m)
	c.group.Drop(m)
	if v := c.volumes[m.ID]; v != nil {
		v.close()
		delete(c.volumes, m.ID)
	}
	if err := os.RemoveAll(m.Dir); err != nil {
		return nil, err
	}
	var voters []uint64
	for _, o := range c.group.Members() {
		voters = append(voters, o.ID)
	}
	n, err := c.add(true)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(c.ctx, 2*time.Minute)
	defer stop()
	if err := n.Start(); err != nil {
		return nil, err
	}
	c.group.Tell(ctx)
	if err := c.group.Change(ctx, append(slices.Clone(voters), m.ID), []uint64{n.ID}); err != nil {
		return nil, err
	}
	return nil, c.group.Change(ctx, append(voters, n.ID), nil)
}

// harm does one fault after another until ctx ends.
func (c *chaos) harm(ctx context.Context, rng *rand.Rand) error {
	able := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return f.needs != nil && !f.needs(c) })
	// All of them once, in some order, and then by lot.
	order := rng.Perm(len(able))
	for n := 0; ctx.Err() == nil; n++ {
		f := able[rng.IntN(len(able))]
		if n < len(order) {
			f = able[order[n]]
		}
		all := c.group.Members()
		victim := all[rng.IntN(len(all))]
		lasts := time.Duration(200+rng.IntN(max(1, c.lasting))) * time.Millisecond
		c.say("%s, member %d, %v", f.name, victim.ID, lasts)
		c.disk = f.needs != nil && mounted(c) && strings.Contains(f.name, "disk")
		heal, err := f.do(c, victim)
		c.done[f.name]++
		if err == nil {
			c.wait(ctx, lasts)
		}
		if heal != nil {
			if err := heal(); err != nil {
				return fmt.Errorf("end of %s: %w", f.name, err)
			}
		}
		if err != nil {
			return fmt.Errorf("%s of member %d: %w", f.name, victim.ID, err)
		}
		if err := c.whole(); err != nil {
			return fmt.Errorf("after %s of member %d: %w", f.name, victim.ID, err)
		}
		c.wait(ctx, time.Duration(rng.IntN(500))*time.Millisecond)
	}
	return nil
}
