package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/client"
	"openvstorage/alba/fleet"
	"openvstorage/alba/health"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
)

// Namespace is the state of a namespace, for people. Sizes are in bytes.
type Namespace struct {
	Name    string            `json:"name"`
	Number  uint64            `json:"number"`
	Preset  string            `json:"preset"`
	Host    uint64            `json:"nsm_host"`
	State   health.State      `json:"state"`
	Reason  string            `json:"reason,omitempty"`
	Created time.Time         `json:"created"`
	Objects uint64            `json:"objects"`
	Size    uint64            `json:"size"`
	Stored  uint64            `json:"stored"`
	Buckets []nsm.BucketCount `json:"buckets,omitempty"`
	OSDs    []nsm.OSDUsage    `json:"osds,omitempty"`
	Epochs  *nsm.Epochs       `json:"epochs,omitempty"`
}

// Inventory tells what a backend stores: its namespaces and objects, and how they are.
type Inventory struct {
	abm    *abm.Client
	nsm    *nsm.Client
	store  *client.Client
	fleet  *fleet.Fleet
	work   *maintenance.Maintenance
	census *census

	mu     sync.Mutex
	expect func(context.Context) ([]string, error) // the namespaces that there must be; nil: nobody says
}

// judged returns what is known of a namespace, and enters its state in n. waiting is how
// many of its objects wait for a repair.
func (i *Inventory) judged(ctx context.Context, n *Namespace, gone map[uint64]bool, waiting uint64) (of health.Namespace, err error) {
	of = health.Namespace{Name: n.Name, Waiting: waiting}
	for _, k := range n.Buckets {
		of.Coded = of.Coded || k.K > 0
		if k.K > 0 && !k.Full() {
			of.Narrow += k.Objects
		}
	}
	for _, u := range n.OSDs {
		of.Spread = of.Spread || gone[u.OSD] && u.Fragments > 0
	}
	if of.MayLose, err = i.census.mayLose(ctx, n, gone); err != nil {
		return of, fmt.Errorf("namespace %s: %w", n.Name, err)
	}
	is := of.Judge()
	n.State, n.Reason = is.State, is.Reason
	return of, nil
}

// goneNow returns the disks of a namespace that cannot be read, as far as the fleet
// knows. It asks no disk.
func (i *Inventory) goneNow(n *Namespace) map[uint64]bool {
	gone := make(map[uint64]bool)
	for _, u := range n.OSDs {
		if _, there := i.fleet.Alive(u.OSD); !there {
			gone[u.OSD] = true
		}
	}
	return gone
}

// Namespaces returns all namespaces, in order of name.
func (i *Inventory) Namespaces(ctx context.Context) ([]Namespace, error) {
	list, unknown, err := i.namespaces(ctx)
	for j := range list {
		if err == nil {
			_, err = i.judged(ctx, &list[j], i.goneNow(&list[j]), 0)
		}
	}
	for _, name := range unknown {
		n := Namespace{Name: name}
		is := (&health.Namespace{Name: name, NoNSM: true}).Judge()
		n.State, n.Reason = is.State, is.Reason
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b Namespace) int { return cmp.Compare(a.Name, b.Name) })
	return list, err
}

// namespaces returns all namespaces that both managers know, without their states, and
// the names of those that the NSM does not know.
func (i *Inventory) namespaces(ctx context.Context) (list []Namespace, unknown []string, err error) {
	names, err := i.store.ListNamespaces(ctx)
	if err != nil {
		return nil, nil, err
	}
	list = make([]Namespace, 0, len(names))
	for _, name := range names {
		n, err := i.namespace(ctx, name)
		switch {
		case err == nil:
			list = append(list, n)
		case !errors.Is(err, abm.ErrNamespaceNotFound):
			return nil, nil, err
		default:
			// The namespace was deleted since, is being made just now, or is lost.
			if rec, err := i.abm.Namespace(ctx, name, userfn.Consistent); err == nil && rec.State == abm.NamespaceActive {
				unknown = append(unknown, name)
			}
		}
	}
	return list, unknown, nil
}

// lostNamespaces returns the namespaces that are needed and that a manager does not
// know. there and unknown are what namespaces has returned.
func (i *Inventory) lostNamespaces(ctx context.Context, there []Namespace, unknown []string) (lost []health.Namespace, err error) {
	for _, name := range unknown {
		lost = append(lost, health.Namespace{Name: name, NoNSM: true})
	}
	i.mu.Lock()
	expect := i.expect
	i.mu.Unlock()
	if expect == nil {
		return lost, nil
	}
	wanted, err := expect(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range wanted {
		known := slices.Contains(unknown, name) || slices.ContainsFunc(there, func(n Namespace) bool { return n.Name == name })
		if known {
			continue
		}
		if _, err := i.abm.Namespace(ctx, name, userfn.Consistent); errors.Is(err, abm.ErrNamespaceNotFound) {
			lost = append(lost, health.Namespace{Name: name, Wanted: true, NoABM: true})
		} else if err != nil {
			return nil, err
		}
	}
	return lost, nil
}

// Expect says which namespaces there must be, for Status and Check to say which are
// not there. of returns their names.
func (i *Inventory) Expect(of func(context.Context) ([]string, error)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.expect = of
}

// NamespaceInfo returns one namespace.
func (i *Inventory) NamespaceInfo(ctx context.Context, name string) (Namespace, error) {
	n, err := i.namespace(ctx, name)
	if err == nil {
		_, err = i.judged(ctx, &n, i.goneNow(&n), 0)
	}
	return n, err
}

// namespace is NamespaceInfo without the state.
func (i *Inventory) namespace(ctx context.Context, name string) (Namespace, error) {
	rec, err := i.abm.Namespace(ctx, name, userfn.Consistent)
	if err != nil {
		return Namespace{}, err
	}
	st, err := i.nsm.Statistics(ctx, rec.Number, userfn.Consistent)
	if err != nil {
		return Namespace{}, fmt.Errorf("namespace %s: %w", name, err)
	}
	return Namespace{
		Name: name, Number: rec.Number, Preset: rec.Preset, Host: rec.Host, Created: time.Unix(0, rec.Created).UTC(),
		Objects: st.Objects, Size: st.Size, Stored: st.Stored, Buckets: st.Buckets, OSDs: st.OSDs, Epochs: &st.Epochs,
	}, nil
}
