package maintenance

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"sync"
	"time"

	"openvstorage/alba/fleet"
	"openvstorage/alba/osd"

	"github.com/google/uuid"
)

// How often it is written down, at most, how far the scrub is. So much of a round is read
// again after a kill. A process may be killed soon after each start, and the scrub must
// get on all the same: the first step after a start is written down as soon as it is
// made, the next a second later, and each that follows after twice the time, up to
// scrubSaveEvery.
const (
	scrubSaveFirst = time.Second
	scrubSaveEvery = time.Minute
)

// scrubState is how far the scrub is on each disk.
type scrubState struct {
	mu     sync.Mutex
	disks  map[uuid.UUID]*scrubDisk
	held   map[uint64]uint64 // bytes that disks hold, by number
	loaded bool
	dirty  bool
	saved  time.Time     // when it was written down; of scrubber.run and end alone, as what follows
	pause  time.Duration // before it is written down again; 0: it was not since the start
}

// scrubDisk is how far it is on one.
type scrubDisk struct {
	turn sync.Mutex // held by whoever reads the disk back; guards credit, paid and rest

	ScrubProgress        // guarded by scrubState.mu; changed by whoever has the turn
	cursor        []byte // the last key that was read back in this round, nil: none; guarded alike
	credit        float64
	paid          time.Time // until when credit was given
	rest          time.Time // it is left alone until then
}

// disk returns the scrub of a disk. It begins now if there is none.
func (s *scrubState) disk(id uuid.UUID, now time.Time) *scrubDisk {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.disks[id]
	if d == nil {
		d = &scrubDisk{ScrubProgress: ScrubProgress{Began: now}}
		s.disks[id] = d
		s.dirty = true
	}
	return d
}

// hold takes how many bytes each disk holds, by its number, as the managers have it.
func (s *scrubState) hold(held map[uint64]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = held
}

// progress is how far the scrub of a disk is; ok is false before it has begun.
func (s *scrubState) progress(id uuid.UUID) (p ScrubProgress, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.disks[id]
	if d == nil {
		return p, false
	}
	return d.ScrubProgress, true
}

// total is how much there is to be read back of a disk, in bytes: what the managers say,
// or what the disk says as long as they have not.
func (s *scrubState) total(d *fleet.Disk) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, ok := s.held[d.Number]; ok {
		return n
	}
	return d.Known().Used
}

// begin begins a round if the last one has ended.
func (s *scrubState) begin(d *scrubDisk, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.Resting {
		d.ScrubProgress, d.cursor = ScrubProgress{Began: now, Ended: d.Ended}, nil
		s.dirty = true
	}
}

// due gives a disk credit for the time that has passed, and reports whether some
// of it is to be read now. The turn is the caller's.
func (s *scrubState) due(d *scrubDisk, now time.Time, period time.Duration, total uint64) bool {
	s.mu.Lock()
	if d.Began.After(now) {
		d.Began = now // the clock was set back
	}
	began, read, rest := d.Began, d.Bytes, d.Resting
	s.mu.Unlock()
	if rest {
		if now.Sub(began) < period {
			d.paid = now
			return false
		}
		s.begin(d, now)
		began, read = now, 0
	}
	if d.paid.IsZero() || d.paid.After(now) {
		d.paid = now
		d.credit = max(d.credit, 1) // the first fragment at once
	}
	d.credit += now.Sub(d.paid).Seconds() * scrubPace(now, began, period, read, total)
	d.credit = min(d.credit, scrubBurst)
	d.paid = now
	return d.credit > 0 && !now.Before(d.rest)
}

// scrubPace is at how many bytes a second a disk is to be read back: what is left in the
// time that is left, within bounds.
func scrubPace(now, began time.Time, period time.Duration, read, total uint64) float64 {
	least := float64(total) / period.Seconds()
	most := scrubCatchUp * least
	left := began.Add(period).Sub(now).Seconds()
	if left <= 0 {
		return most
	}
	return min(max(float64(total-min(read, total))/left, least), most)
}

// pass moves the cursor.
func (s *scrubState) pass(d *scrubDisk, cursor []byte, fragments, bytes, bad uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.cursor = cursor
	d.Fragments += fragments
	d.Bytes += bytes
	d.Bad += bad
	s.dirty = true
}

// end ends a round. If the round met nothing on the disk, it begins anew instead: what is
// written next must not wait for the round after it.
func (s *scrubState) end(d *scrubDisk, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.Fragments == 0 {
		d.Began, d.cursor = now, nil
		return
	}
	d.cursor, d.Ended, d.Resting = nil, now, true
	s.dirty = true
}

// What is written down is JSON: {"version": 1, "crc": N, "disks": [...]}, with a
// scrubRecord for each disk, and crc the CRC-32C of the list as it stands there.
const scrubVersion = 1

// scrubRecord is how far the scrub of a disk is, as it is written down.
type scrubRecord struct {
	ID        uuid.UUID `json:"id"`
	Cursor    string    `json:"cursor,omitempty"` // the last key that was read back, hexadecimal
	Began     time.Time `json:"began"`
	Ended     time.Time `json:"ended"` // the last whole round, the zero time: none
	Resting   bool      `json:"resting,omitempty"`
	Bytes     uint64    `json:"bytes"`
	Fragments uint64    `json:"fragments"`
	Bad       uint64    `json:"bad"`
}

type scrubFile struct {
	Version int             `json:"version"`
	CRC     uint32          `json:"crc"`
	Disks   json.RawMessage `json:"disks"`
}

var errScrubState = errors.New("not how far a scrub is")

func encodeScrub(list []scrubRecord) ([]byte, error) {
	disks, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	return json.Marshal(scrubFile{Version: scrubVersion, CRC: crc32.Checksum(disks, castagnoli), Disks: disks})
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func decodeScrub(b []byte) ([]scrubRecord, error) {
	var f scrubFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%w: %w", errScrubState, err)
	}
	if f.Version != scrubVersion {
		return nil, fmt.Errorf("%w: version %d, this release reads %d", errScrubState, f.Version, scrubVersion)
	}
	if got := crc32.Checksum(f.Disks, castagnoli); got != f.CRC {
		return nil, fmt.Errorf("%w: its CRC is %08x, not %08x", errScrubState, got, f.CRC)
	}
	var list []scrubRecord
	if err := json.Unmarshal(f.Disks, &list); err != nil {
		return nil, fmt.Errorf("%w: %w", errScrubState, err)
	}
	for _, r := range list {
		if n := hex.DecodedLen(len(r.Cursor)); n > osd.KeyMax {
			return nil, fmt.Errorf("%w: a key of %d bytes", errScrubState, n)
		}
		if _, err := hex.DecodeString(r.Cursor); err != nil {
			return nil, fmt.Errorf("%w: %w", errScrubState, err)
		}
	}
	return list, nil
}

// load goes on with what was written down. If that cannot be read, all rounds begin anew.
func (s *scrubState) load(o *Options) {
	s.saved = o.Now()
	b, err := o.ScrubKept()
	var list []scrubRecord
	if err == nil && len(b) > 0 {
		list, err = decodeScrub(b)
	}
	if err != nil {
		o.Logger.Warn("how far the scrub was is not known; it begins anew", "err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded = true
	for _, r := range list {
		if s.disks[r.ID] != nil {
			continue
		}
		cursor, _ := hex.DecodeString(r.Cursor) // decodeScrub has seen it
		if len(cursor) == 0 {
			cursor = nil
		}
		s.disks[r.ID] = &scrubDisk{cursor: cursor, ScrubProgress: ScrubProgress{
			Began: r.Began, Ended: r.Ended, Resting: r.Resting, Bytes: r.Bytes, Fragments: r.Fragments, Bad: r.Bad,
		}}
	}
}

// saveDue reports whether the state, if it has changed, should be written down now.
// stepped says that something was read back just now. A clock that was set back does not
// put that off.
func (s *scrubState) saveDue(now time.Time, stepped bool) bool {
	pause := s.pause
	if pause == 0 && !stepped { // that is kept for the first step
		pause = scrubSaveEvery
	}
	passed := now.Sub(s.saved)
	return passed >= pause || passed < 0
}

// records returns how far the scrub is on each disk that is known, in order of id, to be
// written down. It returns nil if nothing has changed since the last time, or if what was
// written down before has not been read yet. Disks that are not known are forgotten.
func (s *scrubState) records(known map[uuid.UUID]bool) []scrubRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty || !s.loaded {
		return nil
	}
	maps.DeleteFunc(s.disks, func(id uuid.UUID, _ *scrubDisk) bool { return !known[id] })
	list := make([]scrubRecord, 0, len(s.disks))
	for id, d := range s.disks {
		list = append(list, scrubRecord{id, hex.EncodeToString(d.cursor), d.Began, d.Ended, d.Resting, d.Bytes, d.Fragments, d.Bad})
	}
	slices.SortFunc(list, func(a, b scrubRecord) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	s.dirty = false
	return list
}

// unsaved says that what records returned was not written down.
func (s *scrubState) unsaved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty = true
}

// save writes down how far the scrub is, if that has changed.
func (m *scrubber) save() {
	s := &m.state
	known := make(map[uuid.UUID]bool)
	for _, d := range m.opt.Fleet.All() {
		known[d.UUID] = true
	}
	list := s.records(known)
	if list == nil {
		return
	}
	s.saved, s.pause = m.opt.Now(), min(max(2*s.pause, scrubSaveFirst), scrubSaveEvery)
	b, err := encodeScrub(list)
	if err == nil {
		err = m.opt.ScrubKeep(b)
	}
	if err != nil {
		s.unsaved()
		m.opt.Logger.Warn("how far the scrub is could not be written down, to be tried again", "err", err)
	}
}
