package registry

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"openvstorage/internal/format"
)

// An intent, little-endian, under the id of the vDisk that is being made. A reader
// refuses what it does not know. These bytes are on disk. They never change.
//
//	 0      1  version, 1
//	 1      1  kind: 1 make, 2 unmake
//	 2      2  zero
//	 4      4  incompatible features: none are known
//	 8      8  Epoch of the intent
//	16     16  Host
//	32     16  Parent, zero if it is no clone
//	48      8  epoch of the parent's owner, 0 if it is no clone
//	56     12  Begun: seconds since 1970 (8, signed), nanoseconds (4)
//	68     28  zero: room for later releases
const (
	intentVersion = 1
	intentSize    = 96
)

var intentFields = []field{{2, 4, "a field behind the kind"}, {4, 8, "incompatible features"}, {68, intentSize, "a field behind the time"}}

// Kind is what an intent is for.
type Kind byte

// The kinds.
const (
	Make   Kind = 1 // a vDisk is being made
	Unmake Kind = 2 // what was made of it is being removed; it cannot be finished any more
)

func (k Kind) String() string {
	switch k {
	case Make:
		return "make"
	case Unmake:
		return "unmake"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// Intent says durably that a host makes a vDisk that has no record yet, or removes what
// was made of it. It comes before anything else of the vDisk is made.
//
// The order of durable steps is: the intent (Begin), the namespace and what is in it, the
// record in place of the intent (Finish). If something fails before the last: the intent
// is taken (Take), after which Finish fails; what was made is removed; the intent goes
// (End). So each namespace has an intent or a record from before it is there until after
// it is gone, and what has neither is never a reason to delete anything (P8).
type Intent struct {
	ID     uuid.UUID // of the vDisk
	Kind   Kind
	Host   uuid.UUID // that does it
	Epoch  uint64    // 1, and one more with each Take
	Parent uuid.UUID // of a clone, else zero
	// ParentEpoch is the epoch at which Host has the parent. Finish fails when somebody
	// has claimed the parent since: its new owner knows nothing of the clone.
	ParentEpoch uint64
	Begun       time.Time // for people
}

func (in *Intent) encode() []byte {
	b := make([]byte, intentSize)
	le := binary.LittleEndian
	b[0], b[1] = intentVersion, byte(in.Kind)
	le.PutUint64(b[8:], in.Epoch)
	copy(b[16:], in.Host[:])
	copy(b[32:], in.Parent[:])
	le.PutUint64(b[48:], in.ParentEpoch)
	le.PutUint64(b[56:], uint64(in.Begun.Unix()))
	le.PutUint32(b[64:], uint32(in.Begun.Nanosecond()))
	return b
}

func decodeIntent(id uuid.UUID, b []byte) (in Intent, err error) {
	err = checkVersion(b, intentVersion)
	switch {
	case err != nil:
	case len(b) < intentSize:
		err = corrupt("it has %d bytes", len(b))
	case len(b) > intentSize:
		err = newer("it has %d bytes", len(b))
	default:
		err = checkFields(b, intentFields)
	}
	if err == nil {
		in, err = fillIntent(id, b)
	}
	if err != nil {
		return Intent{}, fmt.Errorf("registry: intent of vDisk %s: %w", id, err)
	}
	return in, nil
}

func fillIntent(id uuid.UUID, b []byte) (Intent, error) {
	le := binary.LittleEndian
	in := Intent{
		ID: id, Kind: Kind(b[1]), Host: uuid.UUID(b[16:32]), Epoch: le.Uint64(b[8:]),
		Parent: uuid.UUID(b[32:48]), ParentEpoch: le.Uint64(b[48:]),
	}
	r := Record{}
	switch err := r.decodeCreated(b[56:]); {
	case err != nil:
		return in, err
	case in.Kind > Unmake:
		return in, newer("%v", in.Kind)
	case in.Kind == 0 || in.Epoch == 0 || in.ID == uuid.Nil || in.Host == uuid.Nil:
		return in, corrupt("%v of host %s, epoch %d", in.Kind, in.Host, in.Epoch)
	case in.Parent == uuid.Nil && in.ParentEpoch != 0:
		return in, corrupt("epoch %d of a parent, and no parent", in.ParentEpoch)
	}
	in.Begun = r.Created
	return in, nil
}

// notOwner is the error for somebody who does not have the intent.
func (in *Intent) notOwner() error {
	return &NotOwnerError{ID: in.ID, What: fmt.Sprintf("vDisk %s, of which there is an intent to %v it", in.ID, in.Kind), Host: in.Host, Epoch: in.Epoch}
}

// errNoIntent: there is none for the vDisk.
func errNoIntent(id uuid.UUID) error {
	return fmt.Errorf("intent of vDisk %s: %w: it was finished or removed", id, ErrNotFound)
}

// Begin notes that in.Host makes a vDisk with an id that was never used. in.Kind and
// in.Epoch are set here. Nothing of the vDisk may be there before Begin returns. If it
// fails, nothing was made, but the intent may be there: the host takes it, or its next
// start does.
//
// Errors: ErrIDTaken.
func (r *Registry) Begin(ctx context.Context, in Intent) (Intent, error) {
	in.Kind, in.Epoch = Make, 1
	if _, err := decodeIntent(in.ID, in.encode()); err != nil {
		return in, err
	}
	end, err := r.begin(ctx)
	if err != nil {
		return in, err
	}
	defer end()
	return in, r.change(ctx, func() ([]Swap, error) {
		swaps, _, err := r.entering(ctx, in.Host)
		if err != nil {
			return nil, err
		}
		for _, key := range [][]byte{idKey(in.ID), intentKey(in.ID)} {
			if have, err := r.keys.Get(ctx, key); err != nil {
				return nil, err
			} else if have != nil {
				return nil, fmt.Errorf("%w: %s", ErrIDTaken, in.ID)
			}
		}
		// That there is no record is part of the step.
		return append(swaps, Swap{Key: idKey(in.ID)}, Swap{Key: intentKey(in.ID), New: in.encode()}), nil
	})
}

// Finish adds the vDisk that an intent was for, and removes the intent, in one step. The
// intent must be as Begin returned it: else ErrNotOwner, or ErrNotFound, and what was
// made is for another one to remove. Of a clone, nobody may have claimed the parent
// since.
//
// Errors: those of Register; ErrNotOwner; ErrNotFound.
func (r *Registry) Finish(ctx context.Context, in Intent, rec Record) error {
	if rec.ID != in.ID || rec.Host != in.Host || rec.Parent != in.Parent || in.Kind != Make {
		return fmt.Errorf("vDisk %q: its record is not that of its intent", rec.Name)
	}
	return r.add(ctx, rec, func() ([]Swap, error) {
		swaps, err := r.ending(ctx, in)
		if err != nil || in.Parent == uuid.Nil {
			return swaps, err
		}
		parent, raw, err := r.record(ctx, in.Parent)
		if err == nil {
			err = parent.heldBy(Holder{in.Host, in.ParentEpoch})
		}
		if err == nil && parent.Deleting {
			err = fmt.Errorf("vDisk %q: %w: it is being deleted, and is the parent of a clone", parent.Name, ErrNotFound)
		}
		return append(swaps, Swap{Key: idKey(in.Parent), Old: raw, New: raw}), err
	})
}

// ending returns the swap that removes an intent which nobody has taken since.
func (r *Registry) ending(ctx context.Context, in Intent) ([]Swap, error) {
	raw, err := r.keys.Get(ctx, intentKey(in.ID))
	if err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, errNoIntent(in.ID)
	}
	have, err := decodeIntent(in.ID, raw)
	if err != nil {
		return nil, err
	}
	if have.Host != in.Host || have.Epoch != in.Epoch {
		return nil, have.notOwner()
	}
	return []Swap{{Key: intentKey(in.ID), Old: raw}}, nil
}

// Take takes an intent to remove what was made of the vDisk: whoever had it can neither
// finish it nor end it any more. If from is 0, the host must have the intent already, as
// after a restart. Otherwise the intent must be at the epoch from: so a host cleans up for
// another one, which a person has said is gone.
//
// Errors: ErrNotFound; ErrNotOwner.
func (r *Registry) Take(ctx context.Context, id, host uuid.UUID, from uint64) (in Intent, err error) {
	end, err := r.begin(ctx)
	if err != nil {
		return in, err
	}
	defer end()
	err = r.change(ctx, func() ([]Swap, error) {
		swaps, _, err := r.entering(ctx, host)
		if err != nil {
			return nil, err
		}
		raw, err := r.keys.Get(ctx, intentKey(id))
		if err != nil {
			return nil, err
		}
		if raw == nil {
			return nil, errNoIntent(id)
		}
		if in, err = decodeIntent(id, raw); err != nil {
			return nil, err
		}
		if from > 0 && in.Epoch != from || from == 0 && in.Host != host {
			return nil, in.notOwner()
		}
		in.Kind, in.Host = Unmake, host
		in.Epoch++
		return append(swaps, Swap{Key: intentKey(id), Old: raw, New: in.encode()}), nil
	})
	return in, err
}

// End removes an intent when nothing of the vDisk is left. One that is not there any more
// is removed already.
//
// Errors: ErrNotOwner.
func (r *Registry) End(ctx context.Context, in Intent) error {
	end, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	err = r.change(ctx, func() ([]Swap, error) { return r.ending(ctx, in) })
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Intents returns the intents of all hosts as they are at one moment, in order of id.
// Whoever compares them with records reads the records afterwards: a vDisk that is
// finished in between is then in both, and never in neither.
func (r *Registry) Intents(ctx context.Context) ([]Intent, error) {
	end, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	return intents(ctx, r.keys)
}

func intents(ctx context.Context, keys Keys) (list []Intent, err error) {
	var failed error
	err = keys.Range(ctx, []byte(intentPrefix), func(key, value []byte) bool {
		id, err := uuid.FromBytes(key[len(intentPrefix):])
		if err != nil {
			failed = fmt.Errorf("%w: key %q: %w", format.ErrCorrupt, key, err)
			return false
		}
		in, err := decodeIntent(id, value)
		if err != nil {
			failed = err
			return false
		}
		list = append(list, in)
		return true
	})
	return list, errors.Join(err, failed)
}
