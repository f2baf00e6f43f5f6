package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/client"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/object"
	"openvstorage/alba/preset"
	"openvstorage/internal/format"

	"github.com/google/uuid"
)

// Errors about master keys.
var (
	// ErrWrongKey says that another key had the number of this one before.
	ErrWrongKey = errors.New("it is another key than the one that had this number before")
	// ErrUnproven says that it is not known yet whether a key is the one that had its
	// number before.
	ErrUnproven = errors.New("it cannot be told yet whether it is the key that had this number before")
)

// keyring is the master keys of this start. Before anything is sealed with a key, the
// key is compared with the check value that the ABM keeps of its number: with two keys
// under one number, no key file would open everything.
type keyring struct {
	keys    map[uint64][]byte // by number
	id      uuid.UUID         // of the backend
	abm     *abm.Client
	nsm     *nsm.Client
	presets *PresetStore
	store   *client.Client // reads objects to try a key; nil until it is there
	logger  *slog.Logger

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

// check refuses a start with another key than the one that had its number before, and
// does so before anything is stored with it. A key that a preset uses gets its check
// value if it has none, as a release before check values left it. If disks are missing,
// so that nothing can be told of a key, it is proven when something is to be sealed
// with it.
func (k *keyring) check(ctx context.Context) error {
	if len(k.keys) == 0 {
		return nil
	}
	checks, err := k.abm.KeyChecks(ctx, userfn.Consistent)
	if err != nil {
		return err
	}
	known := make(map[uint64]bool)
	for _, c := range checks {
		known[c.Number] = true
		if k.keys[c.Number] != nil {
			if err := k.compare(c); err != nil {
				return err
			}
		}
	}
	presets, err := k.presets.Presets(ctx)
	if err != nil {
		return err
	}
	for _, p := range presets {
		number := p.Scheme.Key
		if p.Scheme.Cipher == preset.CipherNone || known[number] || k.keys[number] == nil {
			continue
		}
		switch err := k.prove(ctx, number); {
		case err == nil:
		case errors.Is(err, ErrWrongKey), errors.Is(err, format.ErrNewer), ctx.Err() != nil:
			return err
		default: // a disk is missing or full: what there is can be read
			k.logger.Warn("nothing is stored with a master key until it can be told that it is the right one", "key", number, "err", err)
		}
	}
	return nil
}

// compare demands that the key of a number is the one of a check value.
func (k *keyring) compare(c abm.KeyCheck) error {
	if c.Kind != abm.KeyCheckV1 {
		return fmt.Errorf("master key %d: %w: its check value is of kind %d; use that release", c.Number, format.ErrNewer, c.Kind)
	}
	value, err := object.KeyCheck(k.keys[c.Number], k.id)
	if err != nil {
		return fmt.Errorf("master key %d: %w", c.Number, err)
	}
	if value != c.Value {
		return wrongKey(c.Number)
	}
	k.setProven(c.Number)
	return nil
}

func wrongKey(number uint64) error {
	return fmt.Errorf("master key %d: %w: what was stored with that one could not be read, and what is stored now not with that one; nothing was written. Put the right key back under %d, and give a new key a number of its own", number, ErrWrongKey, number)
}

// mayUse refuses to seal what a preset stores from now on with a key that is not there,
// or that is not the one that its number stands for.
func (k *keyring) mayUse(ctx context.Context, p preset.Preset) error {
	switch number := p.Scheme.Key; {
	case p.Scheme.Cipher == preset.CipherNone:
		return nil
	case k.keys[number] == nil:
		return fmt.Errorf("preset %q seals with master key %d, and the key file of `ovs up --keys` has none of that number", p.Name, number)
	default:
		if err := k.prove(ctx, number); err != nil {
			return fmt.Errorf("preset %q: %w", p.Name, err)
		}
		return nil
	}
}

// prove makes sure that a key is the one that its number stands for, and that the ABM
// has its check value. A key with a number that nothing was ever sealed with becomes
// the key of that number.
func (k *keyring) prove(ctx context.Context, number uint64) error {
	if k.isProven(number) {
		return nil
	}
	key, err := k.get(number)
	if err != nil {
		return err
	}
	checks, err := k.abm.KeyChecks(ctx, userfn.Consistent)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(checks, func(c abm.KeyCheck) bool { return c.Number == number }); i >= 0 {
		return k.compare(checks[i])
	}
	if err := k.try(ctx, number); err != nil {
		return err
	}
	value, err := object.KeyCheck(key, k.id)
	if err != nil {
		return fmt.Errorf("master key %d: %w", number, err)
	}
	err = k.abm.PutKeyCheck(ctx, abm.KeyCheck{Number: number, Kind: abm.KeyCheckV1, Value: value})
	switch {
	case errors.Is(err, abm.ErrExists):
		return wrongKey(number)
	case err != nil:
		return fmt.Errorf("master key %d: record what it is recognised by: %w", number, err)
	}
	k.setProven(number)
	return nil
}

// try opens an object of each namespace that is sealed with a key, as there is no check
// value yet.
func (k *keyring) try(ctx context.Context, number uint64) error {
	presets, err := k.presets.Presets(ctx)
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
	names, err := k.store.ListNamespaces(ctx)
	if err != nil {
		return err
	}
	var opened int
	var foreign []string // namespaces that the key does not open
	var unread error
	for _, name := range names {
		n, err := k.abm.Namespace(ctx, name, userfn.Consistent)
		if errors.Is(err, abm.ErrNamespaceNotFound) || err == nil && !sealed[n.Preset] {
			continue
		}
		var any bool
		if err == nil {
			looking, cancel := context.WithTimeout(ctx, keyPatience)
			any, err = k.opens(looking, n)
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
		// An older release took two keys under one number. This release goes on with
		// one of them, and cannot read the namespaces of the other.
		k.logger.Error("namespaces are sealed with another key of the same number, and cannot be read", "key", number, "namespaces", foreign)
	case len(foreign) > 0:
		return wrongKey(number)
	case opened == 0 && unread != nil:
		return fmt.Errorf("master key %d: %w: no object that was sealed with it can be read: %w", number, ErrUnproven, unread)
	}
	return nil
}

// keyTries is how many objects of a namespace are tried before the key counts as
// unproven there.
const keyTries = 4

// keyPatience is how long the objects of one namespace are tried: a disk may hang.
const keyPatience = 5 * time.Second

// opens reads an object of a namespace, preferably one that needs no disk. It reports
// whether there was an object with something in it.
func (k *keyring) opens(ctx context.Context, n abm.Namespace) (any bool, err error) {
	page, err := k.nsm.List(ctx, n.Number, "", "", nsm.MaxPage, userfn.Consistent)
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
		_, err = k.store.Namespace(n.Name).Get(ctx, o.Name, one[:], 0)
		if err == nil || errors.Is(err, io.EOF) {
			return true, nil
		}
		if errors.Is(err, object.ErrSeal) {
			return false, err
		}
	}
	return false, err
}
