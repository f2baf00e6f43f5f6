package roster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"openvstorage/internal/format"
	"openvstorage/internal/keyswap"
)

// Store is the replicated store that the roster is kept in: the config group. Reads see every
// swap that was answered before.
type Store interface {
	// Range calls fn with all keys that begin with prefix, as of one moment, until it
	// returns false. fn may keep the slices.
	Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error
	// Swap makes all swaps if every key has its old value, and otherwise none and returns
	// false. After an error it may have been made, or may be made yet.
	Swap(ctx context.Context, swaps []keyswap.Swap) (bool, error)
}

// Book is the roster in a Store. It is safe for concurrent use, also beside other books on the
// same store.
type Book struct{ Store Store }

// ErrContended: others changed the roster again and again meanwhile. Nothing was changed.
var ErrContended = errors.New("roster is changed by others")

// changeTries is how often a change is tried that others came before.
const changeTries = 16

// Read returns the roster as of now. One that was never written is empty.
func (b Book) Read(ctx context.Context) (*Roster, error) {
	r, _, err := b.read(ctx)
	return r, err
}

// read also returns the values as they are kept.
func (b Book) read(ctx context.Context) (*Roster, map[string][]byte, error) {
	r, kept := new(Roster), make(map[string][]byte)
	var fault error
	err := b.Store.Range(ctx, []byte(Prefix), func(key, value []byte) bool {
		kept[string(key)] = value
		if string(key) == revisionKey {
			r.Revision, fault = decodeRevision(value)
		} else {
			fault = r.Take(key, value)
		}
		return fault == nil
	})
	if err = errors.Join(err, fault); err != nil {
		return nil, nil, fmt.Errorf("read the roster: %w", err)
	}
	r.Sort()
	if err := r.Check(); err != nil {
		return nil, nil, fmt.Errorf("read the roster: %w: %w", format.ErrCorrupt, err)
	}
	return r, kept, nil
}

// Change reads the roster, has fn change it, and writes what is different, all in one swap. If
// others came before, it begins anew. Nothing is written if fn fails, or changes nothing. fn may
// change the roster that it is given in any way; it need not sort it. After an error of the
// store the change may have been made, or may be made yet.
func (b Book) Change(ctx context.Context, fn func(*Roster) error) error {
	for range changeTries {
		r, kept, err := b.read(ctx)
		if err != nil {
			return err
		}
		if err := fn(r); err != nil {
			return err
		}
		r.Sort()
		if err := r.Check(); err != nil {
			return err
		}
		swaps := differences(r, kept)
		if len(swaps) == 0 {
			return nil
		}
		swaps = append(swaps, keyswap.Swap{Key: []byte(revisionKey), Old: kept[revisionKey], New: appendRevision(nil, r.Revision+1)})
		done, err := b.Store.Swap(ctx, swaps)
		if err != nil {
			return fmt.Errorf("change the roster: %w", err)
		}
		if done {
			return nil
		}
	}
	return fmt.Errorf("%w: %d times; try again", ErrContended, changeTries)
}

// differences are the swaps that make the roster of what is kept.
func differences(r *Roster, kept map[string][]byte) (swaps []keyswap.Swap) {
	wanted := make(map[string]bool)
	put := func(key, value []byte) {
		wanted[string(key)] = true
		if old := kept[string(key)]; !bytes.Equal(old, value) {
			swaps = append(swaps, keyswap.Swap{Key: key, Old: old, New: value})
		}
	}
	for _, h := range r.Hosts {
		put(h.Key(), h.Append(nil))
	}
	for _, g := range r.Groups {
		put(g.Key(), g.Append(nil))
	}
	for key, value := range kept {
		if key != revisionKey && !wanted[key] {
			swaps = append(swaps, keyswap.Swap{Key: []byte(key), Old: value})
		}
	}
	slices.SortFunc(swaps, func(x, y keyswap.Swap) int { return bytes.Compare(x.Key, y.Key) })
	return swaps
}

// PutHost makes a host known, or changes what is known of it.
func (r *Roster) PutHost(h Host) {
	r.Hosts = append(slices.DeleteFunc(slices.Clone(r.Hosts), func(o Host) bool { return o.ID == h.ID }), h)
}

// PutGroup makes a group known, or changes what is known of it.
func (r *Roster) PutGroup(g Group) {
	r.Groups = append(slices.DeleteFunc(slices.Clone(r.Groups), func(o Group) bool { return o.Name == g.Name }), g)
}

func appendRevision(dst []byte, revision uint64) []byte {
	return binary.LittleEndian.AppendUint64(appendHead(dst, kindRevision, 0), revision)
}

func decodeRevision(b []byte) (uint64, error) {
	c := &cutter{b: b}
	c.head(kindRevision, 0)
	revision := c.u64()
	return revision, c.end(revisionKey)
}
