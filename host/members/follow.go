package members

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/roster"
)

const (
	followAgain = time.Second      // after a watch of the roster that has ended
	readTime    = 10 * time.Second // that one read of the roster may take
	sweepEvery  = time.Minute      // between two looks whether members here were removed
	learnAgain  = 20 * time.Second // between two looks of a host that may not watch
)

// follow keeps the roster of this host as new as that in the config group.
func (m *Members) follow() {
	for m.loops.Err() == nil {
		changed := m.file.Changed()
		if err := m.watch(); err != nil && m.loops.Err() == nil {
			m.o.Logger.Debug("the roster is watched anew", "err", errors.Join(err, m.learn()))
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
	if len(m.Holders()) == 0 { // a steward tells this host with its first member, or it asks
		if err := m.learn(); err != nil {
			return err
		}
	}
	if holds, _ := m.may(m.o.Self); !holds || len(m.Holders()) == 0 { // no host of the group lets it watch
		select {
		case <-m.file.Changed():
		case <-time.After(learnAgain):
		case <-m.loops.Done():
			return nil
		}
		return m.learn()
	}
	c, err := g.store.remote()
	if err != nil {
		return err
	}
	return c.Watch(m.loops, []byte(roster.Prefix), 0, told)
}

// learn reads the roster as this host reads records: of any host that holds the config group.
// So one that has no member learns where these are, also when all of them have moved.
func (m *Members) learn() error {
	h := m.host.Load()
	if h == nil || h.First() {
		return nil
	}
	ctx, cancel := context.WithTimeout(m.loops, readTime)
	defer cancel()
	r, err := roster.Book{Store: h.Reads()}.Read(ctx)
	if err != nil || r.Revision == 0 {
		return err
	}
	return m.take(r)
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
		for _, name := range m.Names() {
			g := m.all[name]
			number := g.member.Load()
			if at, ok := m.listed(name, m.o.Self); !m.opened.Load().Holds(name, number) || ok && at.ID == number || !m.Known() {
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
