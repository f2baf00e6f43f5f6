package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// Holder is who has a vDisk: a host, at the epoch of its claim. Changes of a vDisk name
// the holder that makes them, and are refused if it is not the present one.
type Holder struct {
	Host  uuid.UUID
	Epoch uint64
}

// Claimant is who claims a vDisk.
type Claimant struct {
	Host uuid.UUID // never zero
	Name string    // of the process, for people: up to OwnerMax bytes
}

// NotOwnerError says who has a vDisk or an intent, to somebody who does not have it. It
// matches ErrNotOwner.
type NotOwnerError struct {
	ID    uuid.UUID
	What  string    // for people: which vDisk
	Host  uuid.UUID // that has it
	Name  string    // of the process that claimed it; may be empty
	Epoch uint64    // of its claim
	// Released: it has given the vDisk up since, and nobody has it.
	Released bool
}

func (e *NotOwnerError) Error() string {
	who := "host " + e.Host.String()
	if e.Host == uuid.Nil {
		who = "the host that an older release ran on"
	}
	if e.Name != "" {
		who += " (" + e.Name + ")"
	}
	if e.Released {
		return fmt.Sprintf("%s: no host has it: %s has released it, at epoch %d", e.What, who, e.Epoch)
	}
	return fmt.Sprintf("%s: %v: %s, since epoch %d", e.What, ErrNotOwner, who, e.Epoch)
}

// Is makes the error match ErrNotOwner.
func (e *NotOwnerError) Is(target error) bool { return target == ErrNotOwner }

// notOwner is the error for somebody who does not have the vDisk.
func (r *Record) notOwner() error {
	return &NotOwnerError{ID: r.ID, What: fmt.Sprintf("vDisk %q", r.Name), Host: r.Host, Name: r.Owner, Epoch: r.Epoch, Released: r.Released}
}

// heldBy returns ErrNotOwner unless by has the vDisk.
func (r *Record) heldBy(by Holder) error {
	if r.Holder() != by || r.Released {
		return r.notOwner()
	}
	return nil
}

// claimable returns nil if a host may claim the vDisk, from the epoch that it names if
// that is not 0.
func (r *Record) claimable(host, founder uuid.UUID, from uint64) error {
	had := r.Host
	if had == uuid.Nil {
		had = founder
	}
	switch {
	case from > 0 && r.Epoch != from: // it was claimed since, by whomever
	case from > 0, r.Released, had == host:
		return nil
	}
	e := *r
	e.Host = had
	return e.notOwner()
}

func (r *Record) claim(c Claimant) {
	r.Host, r.Owner, r.Released = c.Host, c.Name, false
	r.Epoch++
}

// Claim makes a host the owner of a vDisk and returns the next epoch. The epoch is
// durable, and was never returned before (P4). A vDisk that is being deleted can be
// claimed too, by whoever finishes the deletion.
//
// If from is 0, the host must have the vDisk already, or nobody may have it (Release).
// Otherwise the vDisk must be at the epoch from: so a host takes over from another one,
// which it must have fenced first (O12), and of several takers one gets it. The first
// claim of a host enters it in the registry; see Hosts.
//
// Errors: ErrNotFound; ErrNotOwner.
func (r *Registry) Claim(ctx context.Context, id uuid.UUID, c Claimant, from uint64) (epoch uint64, err error) {
	end, err := r.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	err = r.change(ctx, func() ([]Swap, error) {
		swaps, founder, err := r.entering(ctx, c.Host)
		if err != nil {
			return nil, err
		}
		rec, raw, err := r.record(ctx, id)
		if err == nil {
			err = rec.claimable(c.Host, founder, from)
		}
		if err != nil {
			return nil, err
		}
		rec.claim(c)
		epoch = rec.Epoch
		return append(swaps, Swap{Key: idKey(id), Old: raw, New: encodeValue(&rec)}), rec.validate()
	})
	if err != nil {
		return 0, err
	}
	return epoch, nil
}

// ClaimsMax bounds the vDisks of one step of ClaimAll, so that with the longest names
// they fit one command of the store.
const ClaimsMax = 512

// ClaimAll is Claim, from epoch 0, of many vDisks, up to ClaimsMax of them in one step.
// It returns the records as they are now of those that the host has claimed. The others
// are absent, or another host has them, or the error says why: then it is not known of
// some whether they were claimed, and another claim is harmless.
func (r *Registry) ClaimAll(ctx context.Context, c Claimant, ids []uuid.UUID) (map[uuid.UUID]Record, error) {
	claimed := make(map[uuid.UUID]Record, len(ids))
	if len(ids) == 0 {
		return claimed, nil
	}
	end, err := r.begin(ctx)
	if err != nil {
		return claimed, err
	}
	defer end()
	seen := make(map[uuid.UUID]valued, len(ids))
	for _, id := range ids {
		seen[id] = valued{}
	}
	err = each(ctx, r.keys, func(rec Record, raw []byte) {
		if _, wanted := seen[rec.ID]; wanted {
			seen[rec.ID] = valued{rec, raw}
		}
	})
	for len(ids) > 0 && err == nil {
		n := min(len(ids), ClaimsMax)
		err = r.claimSome(ctx, c, ids[:n], seen, claimed)
		ids = ids[n:]
	}
	return claimed, err
}

// valued is a record with its value in the store, which is nil if it is absent.
type valued struct {
	rec Record
	raw []byte
}

// claimSome claims the vDisks ids in one step, and enters them in claimed. seen has what
// was read of them: if others have changed them since, they are read again.
func (r *Registry) claimSome(ctx context.Context, c Claimant, ids []uuid.UUID, seen map[uuid.UUID]valued, claimed map[uuid.UUID]Record) error {
	var now []Record
	again := false
	err := r.change(ctx, func() ([]Swap, error) {
		if again {
			if err := r.readAgain(ctx, ids, seen); err != nil {
				return nil, err
			}
		}
		again, now = true, now[:0]
		swaps, founder, err := r.entering(ctx, c.Host)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			v := seen[id]
			if v.raw == nil || v.rec.claimable(c.Host, founder, 0) != nil {
				continue
			}
			rec := v.rec
			rec.claim(c)
			if err := rec.validate(); err != nil {
				return nil, err
			}
			now = append(now, rec)
			swaps = append(swaps, Swap{Key: idKey(id), Old: v.raw, New: encodeValue(&rec)})
		}
		if len(now) == 0 {
			return nil, nil // the host is not entered for nothing
		}
		return swaps, nil
	})
	if err != nil {
		return err
	}
	for _, rec := range now {
		claimed[rec.ID] = rec
	}
	return nil
}

func (r *Registry) readAgain(ctx context.Context, ids []uuid.UUID, seen map[uuid.UUID]valued) error {
	for _, id := range ids {
		rec, raw, err := r.record(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
			seen[id] = valued{}
		case err != nil:
			return err
		default:
			seen[id] = valued{rec, raw}
		}
	}
	return nil
}

// Release gives a vDisk up: whoever claims it next gets it. Its epoch stays, so that the
// next claim has a newer one. The owner has closed it by then, and nothing of it is only
// on the owner's disks.
//
// Errors: ErrNotFound; ErrNotOwner.
func (r *Registry) Release(ctx context.Context, id uuid.UUID, by Holder) error {
	return r.changeOne(ctx, id, by, func(rec *Record) { rec.Released = true })
}

// MarkDeleting notes that a vDisk is being deleted. That is not taken back: whoever has
// the vDisk from now on finishes the deletion.
//
// Errors: ErrNotFound; ErrNotOwner.
func (r *Registry) MarkDeleting(ctx context.Context, id uuid.UUID, by Holder) error {
	return r.changeOne(ctx, id, by, func(rec *Record) { rec.Deleting = true })
}

// Remove forgets a vDisk and frees its name.
//
// Errors: ErrNotFound, if it is absent; ErrNotOwner.
func (r *Registry) Remove(ctx context.Context, id uuid.UUID, by Holder) error {
	end, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	r.size.Lock()
	defer r.size.Unlock()
	return r.change(ctx, func() ([]Swap, error) {
		rec, raw, err := r.record(ctx, id)
		if err == nil {
			err = rec.heldBy(by)
		}
		if err != nil {
			return nil, err
		}
		m, rawMeta, err := loadMeta(ctx, r.keys)
		if err != nil {
			return nil, err
		}
		if m.records == 0 {
			return nil, corrupt("vDisk %q: there, and the number of vDisks is 0", rec.Name)
		}
		m.records--
		return []Swap{
			{Key: idKey(id), Old: raw, New: nil},
			{Key: nameKey(rec.Name), Old: id[:], New: nil},
			{Key: []byte(metaKey), Old: rawMeta, New: m.encode()},
		}, nil
	})
}
