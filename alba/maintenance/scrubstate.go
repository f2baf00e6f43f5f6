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

// How often is written down, at most, how far the scrub is: so much of a round is read
// again after a kill. A process that was started a moment ago may be killed in a moment,
// again and again, and the scrub must get on all the same. So the first step after a
// start is written down as soon as it is made, the next a second later, and each that
// follows after twice the time, up to scrubSaveEvery.
const (
	scrubSaveFirst = time.Second
	scrubSaveEvery = time.Minute
)

// scrubs is how far the scrub is on each disk.
type scrubs struct {
	steps   sync.WaitGroup // under way
	stepped chan struct{}  // holds one if one has ended; nil: nobody asks

	mu     sync.Mutex
	disks  map[uuid.UUID]*scrubDisk
	held   map[uint64]uint64 // bytes that disks hold, by number
	loaded bool
	dirty  bool
	saved  time.Time     // scrubAll's, as what follows
	pause  time.Duration // before it is written down again; 0: it was not since the start
}

// scrubDisk is how far it is on one.
type scrubDisk struct {
	turn sync.Mutex // one at a time reads the disk back; credit and cursor are its

	ScrubProgress        // guarded by scrubs.mu; changed by who has the turn
	cursor        []byte // the last key that was read back in this round, nil: none; like it
	credit        float64
	paid          time.Time // until when credit was given
	rest          time.Time // it is left alone until then
}

// disk returns the scrub of a disk, which begins now if there is none.
func (s *scrubs) disk(id uuid.UUID, now time.Time) *scrubDisk {
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

// total is how much there is to be read back of a disk.
func (s *scrubs) total(d *fleet.Disk) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, ok := s.held[d.Number]; ok {
		return n
	}
	return d.Known().Used
}

// begin begins a round if the last one has ended.
func (s *scrubs) begin(d *scrubDisk, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.Resting {
		d.ScrubProgress, d.cursor = ScrubProgress{Began: now, Ended: d.Ended}, nil
		s.dirty = true
	}
}

// due gives a disk credit for the time that has passed, and reports whether some
// of it is to be read now. The turn is the caller's.
func (s *scrubs) due(d *scrubDisk, now time.Time, period time.Duration, total uint64) bool {
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
	d.credit += now.Sub(d.paid).Seconds() * pace(now, began, period, read, total)
	d.credit = min(d.credit, scrubBurst)
	d.paid = now
	return d.credit > 0 && !now.Before(d.rest)
}

// pace is at how many bytes a second a disk is to be read back: what is left in the
// time that is left, within bounds.
func pace(now, began time.Time, period time.Duration, read, total uint64) float64 {
	least := float64(total) / period.Seconds()
	most := scrubCatchUp * least
	left := began.Add(period).Sub(now).Seconds()
	if left <= 0 {
		return most
	}
	return min(max(float64(total-min(read, total))/left, least), most)
}

// pass moves the cursor.
func (s *scrubs) pass(d *scrubDisk, cursor []byte, fragments, bytes, bad uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.cursor = cursor
	d.Fragments += fragments
	d.Bytes += bytes
	d.Bad += bad
	s.dirty = true
}

// end ends a round. One that met nothing on the disk was none: what comes is not to
// wait for the next.
func (s *scrubs) end(d *scrubDisk, now time.Time) {
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

// load goes on with what was written down. What cannot be read costs nothing but
// that the round begins anew.
func (s *scrubs) load(o Options) {
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

// saveDue reports whether how far the scrub is should be written down, if it has
// changed; stepped says that something was read back just now. A clock that was set back
// does not put that off.
func (s *scrubs) saveDue(now time.Time, stepped bool) bool {
	pause := s.pause
	if pause == 0 && !stepped { // that is kept for the first step
		pause = scrubSaveEvery
	}
	passed := now.Sub(s.saved)
	return passed >= pause || passed < 0
}

// keepScrub writes down how far the scrub is, if that has changed.
func (m *Maintenance) keepScrub() {
	s := &m.scrubs
	known := make(map[uuid.UUID]bool)
	for _, d := range m.opt.Fleet.All() {
		known[d.UUID] = true
	}
	s.mu.Lock()
	if !s.dirty || !s.loaded {
		s.mu.Unlock()
		return
	}
	maps.DeleteFunc(s.disks, func(id uuid.UUID, _ *scrubDisk) bool { return !known[id] })
	list := make([]scrubRecord, 0, len(s.disks))
	for id, d := range s.disks {
		list = append(list, scrubRecord{id, hex.EncodeToString(d.cursor), d.Began, d.Ended, d.Resting, d.Bytes, d.Fragments, d.Bad})
	}
	s.dirty = false
	s.mu.Unlock()
	s.saved, s.pause = m.opt.Now(), min(max(2*s.pause, scrubSaveFirst), scrubSaveEvery)
	slices.SortFunc(list, func(a, b scrubRecord) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	b, err := encodeScrub(list)
	if err == nil {
		err = m.opt.ScrubKeep(b)
	}
	if err != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
		m.opt.Logger.Warn("how far the scrub is could not be written down, to be tried again", "err", err)
	}
}
