package members

import (
	"context"
	"fmt"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/roster"
)

const (
	followAgain = time.Second      // after a watch of the roster that has ended
	readTime    = 10 * time.Second // that one read of the roster may take
	sweepEvery  = time.Minute      // between two looks whether members here were removed
)

// follow keeps the roster of this host as new as that in the config group.
func (m *Members) follow() {
	for m.loops.Err() == nil {
		changed := m.file.Changed()
		if err := m.watch(); err != nil && m.loops.Err() == nil {
			m.o.Logger.Debug("the roster is watched anew", "err", err)
		}
		select {
		case <-time.After(followAgain):
		case <-changed: // the config group may be elsewhere now
		case <-m.loops.Done():
		}
	}
}

// watch reads the roster now, and after each change of it, until that fails.
func (m *Members) watch() error {
	first := true
	told := func(e arakoon.Events) error {
		if !first && len(e.List) == 0 {
			return nil
		}
		first = false
		return m.read()
	}
	g := m.all[Config]
	if n := g.node.Load(); n != nil {
		return n.Watch(m.loops, []byte(roster.Prefix), 0, told)
	}
	if len(m.Holders()) == 0 {
		select { // a steward tells this host, with its first member
		case <-m.file.Changed():
		case <-m.loops.Done():
		}
		return nil
	}
	if holds, _ := m.may(m.o.Self); !holds { // no host of the group lets it watch
		select {
		case <-m.file.Changed():
		case <-time.After(sweepEvery):
		case <-m.loops.Done():
		}
		return nil
	}
	c, err := g.store.remote()
	if err != nil {
		return err
	}
	return c.Watch(m.loops, []byte(roster.Prefix), 0, told)
}

// read takes the roster up as it is in the config group.
func (m *Members) read() error {
	ctx, cancel := context.WithTimeout(m.loops, readTime)
	defer cancel()
	r, err := m.book().Read(ctx)
	if err != nil {
		return err
	}
	return m.take(r)
}

// sweep drops members that their groups have removed while this host was away.
func (m *Members) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		changed := m.file.Changed()
		for _, name := range m.names() {
			g := m.all[name]
			number := g.member.Load()
			if at, ok := m.listed(name, m.o.Self); g.node.Load() == nil || number == 1 || ok && at.ID == number || !m.Known() {
				continue
			}
			if err := (keeper{m}).Drop(m.loops, name, number); err != nil && m.loops.Err() == nil {
				m.o.Logger.Warn("a member here is not in the roster, and stays", "group", name, "member", number, "err", fmt.Errorf("it is deleted when its group says that it was removed: %w", err))
			}
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-m.loops.Done():
			return
		}
	}
}
