package arakoon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Moment is the state of a group at one revision, held to be backed up while the group goes
// on. It keeps files from being removed, and Close of the node waits for it: so it is to be
// closed soon. Its methods are for one goroutine at a time, but Close, which may be called
// at any time and again.
type Moment struct {
	node  *Node
	ask   func(ctx context.Context) (uint64, error) // whoever leads, for the newest revision; nil: this member does
	image *held
	end   func()
	once  sync.Once
}

// Moment holds the state as this member has applied it. Only if Current then says so is it
// sure that it has all that was answered before the call of Moment.
func (i ImageCalls) Moment(ctx context.Context) (*Moment, error) {
	end, err := i.node.readers.begin(ctx, Local)
	if err != nil {
		return nil, err
	}
	image, err := i.node.state.image()
	if err != nil {
		end()
		return nil, err
	}
	return &Moment{node: i.node, image: image, end: end}, nil
}

// Revision is that of the last write that the moment has.
func (m *Moment) Revision() uint64 { return m.image.Index() }

// Current reports whether nothing was answered that the moment lacks, at some instant
// between the call and its return. Only the leader can tell.
func (m *Moment) Current(ctx context.Context) (bool, error) {
	ask := m.ask
	if ask == nil {
		ask = m.node.readers.newest
	}
	newest, err := ask(ctx)
	return newest <= m.Revision(), err
}

// Backup writes a backup of the moment, as ImageCalls.Backup does.
func (m *Moment) Backup(ctx context.Context, w io.Writer) error {
	_, err := m.image.Backup(ctx, w, m.node.opt.Group, m.node.pace)
	return err
}

// Close lets go of the state.
func (m *Moment) Close() (err error) {
	m.once.Do(func() {
		err = m.image.Close()
		m.end()
	})
	return err
}

// momentTries is how often Moments looks for an instant at which all groups stand still.
const momentTries = 1000

// Moments holds the states of several groups as they were at one instant: at that instant
// each group had answered nothing that is not in its moment, and each moment had been
// reached. All must be led by these members.
//
// Records of one group name records of another. They are made before what names them, and
// removed after it. So no order of backups one after the other is safe while the groups go
// on: what is named may be removed before its backup, or made after it. Therefore all states
// are held first, which takes microseconds; then each leader is asked whether it has answered
// anything since. If none has, the instant is the one between the two. Otherwise all is
// begun again, up to 1000 times, and then the error matches ErrBusy.
func Moments(ctx context.Context, nodes ...*Node) ([]*Moment, error) {
	var list []Momentary
	for _, n := range nodes {
		list = append(list, Momentary{Node: n})
	}
	return MomentsAt(ctx, list...)
}

// Momentary is a member whose state is to be held.
type Momentary struct {
	*Node
	// Newest asks whoever leads for a revision that has all that was answered before the call.
	// nil: the member leads.
	Newest func(ctx context.Context) (uint64, error)
}

// MomentsAt is Moments of members that others lead.
func MomentsAt(ctx context.Context, of ...Momentary) ([]*Moment, error) {
	return momentsOf(ctx, of, func() {})
}

// momentsOf is MomentsAt; held is called whenever the state of one more group is held.
func momentsOf(ctx context.Context, nodes []Momentary, held func()) (list []*Moment, err error) {
	for range momentTries {
		list, err = holdAll(ctx, nodes, held)
		if err != nil {
			return nil, err
		}
		current := true
		for _, m := range list {
			now, err := m.Current(ctx)
			if err != nil {
				return nil, errors.Join(err, closeAll(list))
			}
			current = current && now
		}
		if current {
			return list, nil
		}
		if err := closeAll(list); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: each time that the states of %d groups were held, one of them had a write meanwhile, %d times; try again when less is written", ErrBusy, len(nodes), momentTries)
}

func holdAll(ctx context.Context, nodes []Momentary, held func()) (list []*Moment, err error) {
	for _, n := range nodes {
		m, err := n.Moment(ctx)
		if err != nil {
			return nil, errors.Join(err, closeAll(list))
		}
		m.ask = n.Newest
		list = append(list, m)
		held()
	}
	return list, nil
}

func closeAll(list []*Moment) error {
	var errs []error
	for _, m := range list {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
