package members

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"sync"

	"openvstorage/arakoon"
	"openvstorage/internal/disk"
	"openvstorage/internal/format"
)

// refusedFile is which hosts of learners have refused the members here, in the data directory.
const refusedFile = "refused.json"

const (
	refusedVersion = 1
	refusedMax     = 1 << 16 // bytes of the file
)

// refusal is that the host of a learner has answered and refused a member of this host, and
// has taken no connection of it since. The group may have been recovered there.
type refusal struct {
	Group  string `json:"group"`
	Life   uint64 `json:"life"` // of the group, as this host knows it
	Member uint64 `json:"member"`
	By     uint64 `json:"by"` // the learner
}

// refusals are those of all members of a data directory. They outlast a restart: a member that
// the host of its learner has refused would otherwise take that host, when it is off, for one
// that died, and answer alone what is old.
//
// A refusal is noted before anything is dropped for it, and it may be lost with a power cut in
// the moment that follows: the member hears it again with its next connection. Safe for
// concurrent use.
type refusals struct {
	fs     disk.FS
	name   string
	logger *slog.Logger

	mu     sync.Mutex
	now    []refusal
	dirty  bool // the file does not say so yet
	saving bool
	work   sync.WaitGroup
}

// loadRefusals reads the file; one that is absent has none.
func loadRefusals(fsys disk.FS, dir string, logger *slog.Logger) (*refusals, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	r := &refusals{fs: fsys, name: path.Join(dir, refusedFile), logger: logger}
	b, err := disk.ReadWhole(fsys, r.name, refusedMax)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		r.now, err = decodeRefusals(b)
	}
	if err != nil {
		return nil, fmt.Errorf("%s, which says whether another host has refused this one: %w: if no group of this host was recovered elsewhere (`ovs recover`), remove the file", r.name, err)
	}
	return r, nil
}

type refusedRecord struct {
	Version int       `json:"version"`
	Refused []refusal `json:"refused"`
}

func decodeRefusals(b []byte) ([]refusal, error) {
	var rec refusedRecord
	if err := json.Unmarshal(b, &rec); err != nil {
		return nil, fmt.Errorf("%w: %w", format.ErrCorrupt, err)
	}
	switch {
	case rec.Version > refusedVersion:
		return nil, fmt.Errorf("%w: version %d, this release reads up to %d", format.ErrNewer, rec.Version, refusedVersion)
	case rec.Version < 1:
		return nil, fmt.Errorf("%w: version %d", format.ErrCorrupt, rec.Version)
	}
	return rec.Refused, nil
}

func encodeRefusals(list []refusal) ([]byte, error) {
	b, err := json.MarshalIndent(refusedRecord{refusedVersion, list}, "", "  ")
	return append(b, '\n'), err
}

// of are the learners whose hosts have refused a member.
func (r *refusals) of(group string, life, member uint64) (by []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.now {
		if f.Group == group && f.Life == life && f.Member == member {
			by = append(by, f.By)
		}
	}
	return by
}

// note notes that a member is refused, or not any more. It waits for no disk: the file is
// written beside it, and if that fails, again when the next word of the other host comes.
func (r *refusals) note(f refusal, now bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch i := slices.Index(r.now, f); {
	case now && i < 0:
		r.now, r.dirty = append(slices.Clone(r.now), f), true
		// What an earlier life or member was refused says nothing of this one.
		r.now = slices.DeleteFunc(r.now, func(o refusal) bool { return o.Group == f.Group && (o.Life != f.Life || o.Member != f.Member) })
	case !now && i >= 0:
		r.now, r.dirty = slices.Delete(slices.Clone(r.now), i, i+1), true
	}
	if r.dirty && !r.saving {
		r.saving = true
		r.work.Go(r.save)
	}
}

// save writes the file until it says what is so.
func (r *refusals) save() {
	for {
		r.mu.Lock()
		list := r.now
		r.dirty = false
		r.mu.Unlock()
		b, err := encodeRefusals(list)
		if err == nil {
			err = disk.ReplaceWhole(r.fs, r.name, b)
		}
		r.mu.Lock()
		if err != nil {
			r.dirty = true
			r.logger.Warn("that another host refuses this one is not remembered over a restart yet", "file", r.name, "err", err)
		}
		if err != nil || !r.dirty {
			r.saving = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
	}
}

// close waits until the file is written.
func (r *refusals) close() { r.work.Wait() }

// heard is a member as its transport sees it, which remembers who has refused it.
type heard struct {
	*arakoon.Node
	note func(by uint64, now bool)
}

// ReportRefused notes it and tells the member.
func (h heard) ReportRefused(by uint64, now bool) {
	h.note(by, now)
	h.Node.ReportRefused(by, now)
}
