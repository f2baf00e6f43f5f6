package recovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"openvstorage/arakoon"
	"openvstorage/arakoon/roster"
	"openvstorage/host/groupkeys"
	"openvstorage/host/members"
	"openvstorage/internal/datadir"
	"openvstorage/trust"
)

// openTime bounds how long a group that is alone may take to answer when it is opened.
const openTime = time.Minute

// Run does what the plan says. When it returns nil all of it is durable. After an error, or a
// power cut, it is taken again: Open finds what was decided.
func (r *Recovery) Run(ctx context.Context) error {
	p := &r.plan
	d := &decision{Version: decisionAlone, Life: p.Life, Began: time.Now().UTC(), Groups: p.Groups, GivenUp: p.GivenUp}
	if r.o.From != FromSurvivor {
		d.Version = decisionAnew
	}
	if p.Resumes { // the record stays as it was made: by now the groups are not as they were before
		was, err := readDecision(r.o.FS, r.o.Dir)
		if err != nil {
			return err
		}
		if was != nil {
			d = was
		}
	} else if err := d.write(r.o.FS, r.o.Dir); err != nil { // step 1
		return fmt.Errorf("record of the decision: %w", err)
	}
	err := r.dir.Change(func(rec *datadir.Record) { // step 2
		rec.Life = max(rec.Life, p.Life)
		if rec.Suspended.IsZero() {
			rec.Suspended = time.Now().UTC()
		}
	})
	if err != nil {
		return err
	}
	for i := range p.Groups { // step 3
		if err := ctx.Err(); err != nil {
			return err
		}
		g := &p.Groups[i]
		var err error
		if g.From == FromSurvivor {
			_, err = arakoon.Recover(r.options(g), p.Life)
		} else {
			err = r.makeAnew(ctx, g, d.Began)
		}
		if err != nil {
			return fmt.Errorf("group %s: %w", g.Name, err)
		}
	}
	now, err := r.tell(ctx) // step 4
	if err != nil {
		return err
	}
	if now.Revision > 0 { // a host that nobody has joined has no roster
		if err := r.file.Put(now); err != nil { // step 5
			return err
		}
	}
	d.Done = true // step 6
	return d.write(r.o.FS, r.o.Dir)
}

// tell has every group answer, and the config group hold what has changed. It returns the
// roster as it is from then on.
func (r *Recovery) tell(ctx context.Context) (now *roster.Roster, err error) {
	for i := range r.plan.Groups {
		if g := &r.plan.Groups[i]; g.Name != members.Config {
			if err := r.opened(ctx, g, func(context.Context, *arakoon.Node) error { return nil }); err != nil {
				return nil, err
			}
		}
	}
	number, dir := members.Here(r.dir, members.Config)
	config := &Group{Name: members.Config, Member: number, dir: dir}
	for _, s := range r.o.Specs {
		if s.Name == members.Config {
			config.spec = s
		}
	}
	err = r.opened(ctx, config, func(ctx context.Context, n *arakoon.Node) error {
		store := &groupkeys.Keys{Node: n}
		book := roster.Book{Store: store}
		if now, err = book.Read(ctx); err != nil || now.Revision == 0 && r.file.Now().Revision == 0 {
			return err
		}
		if r.o.From == FromSurvivor {
			if err := r.giveUp(ctx, store, book); err != nil {
				return err
			}
		}
		if err := book.Change(ctx, r.rewrite); err != nil {
			return err
		}
		// What this host was told by a steward may be newer than what the group came to hold.
		if err := book.Lift(ctx, r.file.Now().Revision+1); err != nil {
			return err
		}
		now, err = book.Read(ctx)
		return err
	})
	return now, err
}

// opened opens a group that is alone, and calls fn when it answers.
func (r *Recovery) opened(ctx context.Context, g *Group, fn func(context.Context, *arakoon.Node) error) (err error) {
	return r.openedWith(ctx, g.Name, r.options(g), fn)
}

func (r *Recovery) openedWith(ctx context.Context, name string, o arakoon.Options, fn func(context.Context, *arakoon.Node) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	n, err := arakoon.Open(o)
	if err != nil {
		return fmt.Errorf("group %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	err = arakoon.Patiently(ctx, func() error {
		_, err := n.MultiGet(ctx, arakoon.Consistent, []byte("host/generation"))
		return err
	})
	if err == nil {
		err = fn(ctx, n)
	}
	if err != nil {
		return fmt.Errorf("group %s, which is alone now: %w", name, err)
	}
	return nil
}

// giveUp removes the hosts that hold members of older lives from the cluster's records: they
// come back with an empty directory, by another join.
func (r *Recovery) giveUp(ctx context.Context, store trust.Store, book roster.Book) error {
	now, err := book.Read(ctx)
	if err != nil {
		return err
	}
	hosts := map[uuid.UUID]bool{}
	for _, o := range r.plan.GivenUp {
		hosts[o.Host] = true
	}
	for _, g := range now.Groups {
		if !slices.ContainsFunc(r.plan.Groups, func(p Group) bool { return p.Name == g.Name }) {
			continue
		}
		for _, m := range g.Members {
			hosts[m.Host] = true
		}
	}
	delete(hosts, r.plan.Host)
	registrar := trust.NewRegistrar(trust.RegistrarOptions{Store: store, Host: r.plan.Host})
	defer registrar.Close()
	for h := range hosts {
		err := registrar.RemoveHost(ctx, h, fmt.Sprintf("it was given up by ovs recover: the groups are of life %d", r.plan.Life))
		if err != nil && !errors.Is(err, trust.ErrAbsent) {
			return err
		}
	}
	return nil
}

// rewrite makes the roster one of the later life. What was required of zones can be met by one
// member no more; it is asked for anew when there are others.
func (r *Recovery) rewrite(now *roster.Roster) error {
	file := r.file.Now()
	if r.o.From != FromSurvivor && file.Revision > now.Revision {
		// The group is of a backup, and what this host was told since is newer.
		now.Hosts, now.Groups = slices.Clone(file.Hosts), slices.Clone(file.Groups)
	}
	h, listed := now.Host(r.plan.Host)
	if !listed {
		var known bool
		if h, known = file.Host(r.plan.Host); !known {
			return fmt.Errorf("no roster has this host %s", r.plan.Host)
		}
	}
	h.Leaves, h.Maintenance = false, false // others were to do without it, and it is what is left
	now.PutHost(h)
	now.Sort()
	for _, p := range r.plan.Groups {
		g, _ := now.Group(p.Name)
		known, _ := file.Group(p.Name)
		g.Name, g.Life, g.RequireZones = p.Name, r.plan.Life, 0
		g.Next = max(g.Next, known.Next, p.Next)
		g.Members = []roster.Member{{ID: p.Member, Host: r.plan.Host}}
		now.PutGroup(g)
	}
	now.Sort()
	now.Hosts = slices.DeleteFunc(slices.Clone(now.Hosts), func(h roster.Host) bool {
		used := slices.ContainsFunc(now.Groups, func(g roster.Group) bool { _, on := g.MemberOn(h.ID); return on })
		return !used && slices.ContainsFunc(r.plan.GivenUp, func(o Other) bool { return o.Host == h.ID })
	})
	return nil
}
