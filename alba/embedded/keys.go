package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/object"
	"openvstorage/alba/preset"
	"openvstorage/internal/format"
)

// Errors about master keys.
var (
	// ErrWrongKey: under the number of a key there was another one before.
	ErrWrongKey = errors.New("it is another key than the one that had this number before")
	// ErrUnproven: nobody can tell yet whether a key is the one that it was.
	ErrUnproven = errors.New("it cannot be told yet whether it is the key that had this number before")
)

// keyring are the master keys of this start. Each is compared with the check value
// that the ABM keeps of its number before anything is sealed with it: with two
// keys under one number, no key file would open everything.
type keyring struct {
	keys map[uint64][]byte

	mu     sync.Mutex
	proven map[uint64]bool
}

// get returns a key.
func (k *keyring) get(number uint64) ([]byte, error) {
	if key := k.keys[number]; key != nil {
		return key, nil
	}
	return nil, fmt.Errorf("master key %d is not in the key file, which has %v", number, slices.Sorted(maps.Keys(k.keys)))
}

func (k *keyring) isProven(number uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.proven[number]
}

func (k *keyring) setProven(number uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.proven == nil {
		k.proven = make(map[uint64]bool)
	}
	k.proven[number] = true
}

// checkKeys refuses a start with a key that is not what it was: before anything is
// stored with it. Keys of presets that have no check value yet, as a release before
// them left it, get theirs. One of which nothing can be told now, as disks are
// missing, is proven when something is to be sealed with it.
func (b *Backend) checkKeys(ctx context.Context) error {
	if len(b.ring.keys) == 0 {
		return nil
	}
	checks, err := b.abm.KeyChecks(ctx, userfn.Consistent)
	if err != nil {
		return err
	}
	known := make(map[uint64]bool)
	for _, c := range checks {
		known[c.Number] = true
		if b.ring.keys[c.Number] != nil {
			if err := b.compareKey(c); err != nil {
				return err
			}
		}
	}
	presets, err := b.Presets(ctx)
	if err != nil {
		return err
	}
	for _, p := range presets {
		number := p.Scheme.Key
		if p.Scheme.Cipher == preset.CipherNone || known[number] || b.ring.keys[number] == nil {
			continue
		}
		switch err := b.proveKey(ctx, number); {
		case err == nil:
		case errors.Is(err, ErrWrongKey), errors.Is(err, format.ErrNewer), ctx.Err() != nil:
			return err
		default: // a disk is missing or full: what there is can be read
			b.opt.Logger.Warn("nothing is stored with a master key until it can be told that it is the right one", "key", number, "err", err)
		}
	}
	return nil
}

// compareKey demands that the key of a number is the one of a check value.
func (b *Backend) compareKey(c abm.KeyCheck) error {
	if c.Kind != abm.KeyCheckV1 {
		return fmt.Errorf("master key %d: %w: its check value is of kind %d; use that release", c.Number, format.ErrNewer, c.Kind)
	}
	value, err := object.KeyCheck(b.ring.keys[c.Number], b.opt.ID)
	if err != nil {
		return fmt.Errorf("master key %d: %w", c.Number, err)
	}
	if value != c.Value {
		return wrongKey(c.Number)
	}
	b.ring.setProven(c.Number)
	return nil
}

func wrongKey(number uint64) error {
	return fmt.Errorf("master key %d: %w: what was stored with that one could not be read, and what is stored now not with that one; nothing was written. Put the right key back under %d, and give a new key a number of its own", number, ErrWrongKey, number)
}

// proveKey makes sure that a key is the one that its number stands for, and that
// the ABM knows by what to tell. One that nothing was ever sealed with is it from
// now on.
func (b *Backend) proveKey(ctx context.Context, number uint64) error {
	if b.ring.isProven(number) {
		return nil
	}
	key, err := b.ring.get(number)
	if err != nil {
		return err
	}
	checks, err := b.abm.KeyChecks(ctx, userfn.Consistent)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(checks, func(c abm.KeyCheck) bool { return c.Number == number }); i >= 0 {
		return b.compareKey(checks[i])
	}
	if err := b.tryKey(ctx, number); err != nil {
		return err
	}
	value, err := object.KeyCheck(key, b.opt.ID)
	if err != nil {
		return fmt.Errorf("master key %d: %w", number, err)
	}
	err = b.abm.PutKeyCheck(ctx, abm.KeyCheck{Number: number, Kind: abm.KeyCheckV1, Value: value})
	switch {
	case errors.Is(err, abm.ErrExists):
		return wrongKey(number)
	case err != nil:
		return fmt.Errorf("master key %d: record what it is recognised by: %w", number, err)
	}
	b.ring.setProven(number)
	return nil
}

// tryKey opens an object of each namespace that is sealed with a key, as there is
// no check value yet.
func (b *Backend) tryKey(ctx context.Context, number uint64) error {
	presets, err := b.Presets(ctx)
	if err != nil {
		return err
	}
	sealed := make(map[string]bool)
	for _, p := range presets {
		if p.Scheme.Cipher != preset.CipherNone && p.Scheme.Key == number && p.Namespaces > 0 {
			sealed[p.Name] = true
		}
	}
	if len(sealed) == 0 {
		return nil
	}
	names, err := b.Client.ListNamespaces(ctx)
	if err != nil {
		return err
	}
	var opened int
	var foreign []string // namespaces that the key does not open
	var unread error
	for _, name := range names {
		n, err := b.abm.Namespace(ctx, name, userfn.Consistent)
		if errors.Is(err, abm.ErrNamespaceNotFound) || err == nil && !sealed[n.Preset] {
			continue
		}
		var any bool
		if err == nil {
			looking, cancel := context.WithTimeout(ctx, keyPatience)
			any, err = b.opens(looking, n)
			cancel()
		}
		switch {
		case errors.Is(err, object.ErrSeal):
			foreign = append(foreign, name)
		case err != nil:
			unread = fmt.Errorf("namespace %s: %w", name, err)
		case any:
			opened++
		}
	}
	switch {
	case opened > 0 && len(foreign) > 0:
		// An older release took both. This one cannot read what is in those.
		b.opt.Logger.Error("namespaces are sealed with another key of the same number, and cannot be read", "key", number, "namespaces", foreign)
	case len(foreign) > 0:
		return wrongKey(number)
	case opened == 0 && unread != nil:
		return fmt.Errorf("master key %d: %w: no object that was sealed with it can be read: %w", number, ErrUnproven, unread)
	}
	return nil
}

// keyTries is how many objects of a namespace are tried, as long as none can be read.
const keyTries = 4

// keyPatience is how long objects of a namespace are tried: a disk may hang.
const keyPatience = 5 * time.Second

// opens reads an object of a namespace, one that needs no disk if there is any. It
// reports whether there was one with something in it.
func (b *Backend) opens(ctx context.Context, n abm.Namespace) (any bool, err error) {
	page, err := b.nsm.List(ctx, n.Number, "", "", nsm.MaxPage, userfn.Consistent)
	if errors.Is(err, nsm.ErrNamespaceNotFound) {
		return false, nil // it is being made, or was just removed
	}
	if err != nil {
		return false, err
	}
	page = slices.DeleteFunc(page, func(o nsm.Object) bool { return o.Size == 0 })
	slices.SortStableFunc(page, func(x, y nsm.Object) int { return min(len(x.Chunks), 1) - min(len(y.Chunks), 1) })
	for _, o := range page[:min(len(page), keyTries)] {
		var one [1]byte
		_, err = b.Client.Namespace(n.Name).Get(ctx, o.Name, one[:], 0)
		if err == nil || errors.Is(err, io.EOF) {
			return true, nil
		}
		if errors.Is(err, object.ErrSeal) {
			return false, err
		}
	}
	return false, err
}
