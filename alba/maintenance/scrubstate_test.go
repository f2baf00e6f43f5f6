package maintenance

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
)

func sampleScrub() []scrubRecord {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return []scrubRecord{
		{ID: uuid.UUID{1}, Cursor: "6f00ff", Began: began, Ended: began.Add(-time.Hour), Bytes: 7, Fragments: 3, Bad: 1},
		{ID: uuid.UUID{2}, Began: began, Resting: true},
	}
}

func FuzzScrubState(f *testing.F) {
	b, err := encodeScrub(sampleScrub())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1,"crc":0,"disks":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := decodeScrub(b)
		if err != nil {
			return
		}
		again, err := encodeScrub(list)
		if err != nil {
			t.Skip(err) // a time that JSON does not take
		}
		if back, err := decodeScrub(again); err != nil || len(back) != len(list) {
			t.Errorf("%v: %v", list, err)
		}
	})
}

// What is written down today is read by each later release.
func TestScrubStateStays(t *testing.T) {
	const v1 = `{"version":1,"crc":3734834928,"disks":[{"id":"01000000-0000-0000-0000-000000000000","cursor":"6f00ff","began":"2026-01-02T03:04:05Z","ended":"2026-01-02T02:04:05Z","bytes":7,"fragments":3,"bad":1},{"id":"02000000-0000-0000-0000-000000000000","began":"2026-01-02T03:04:05Z","ended":"0001-01-01T00:00:00Z","resting":true,"bytes":0,"fragments":0,"bad":0}]}`
	b, err := encodeScrub(sampleScrub())
	if err != nil || string(b) != v1 {
		t.Errorf("%s, %v", b, err)
	}
	if list, err := decodeScrub([]byte(v1)); err != nil || !reflect.DeepEqual(list, sampleScrub()) {
		t.Errorf("%+v, %v", list, err)
	}
	// A bit anywhere in what it says is seen.
	var file scrubFile
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	for i := range file.Disks {
		bad := file
		bad.Disks = append(json.RawMessage(nil), file.Disks...)
		bad.Disks[i] ^= 1
		if text, err := json.Marshal(bad); err == nil {
			if _, err := decodeScrub(text); err == nil {
				t.Errorf("a flipped bit at %d was not seen", i)
			}
		}
	}
}

// A start goes on behind the key that was read back last, on each disk; one that rests
// has none. What is known already stays.
func TestScrubLoads(t *testing.T) {
	b, err := encodeScrub(sampleScrub())
	if err != nil {
		t.Fatal(err)
	}
	known := &scrubDisk{cursor: []byte("known")}
	s := scrubState{disks: map[uuid.UUID]*scrubDisk{{2}: known}}
	s.load(&Options{Now: time.Now, ScrubKept: func() ([]byte, error) { return b, nil }})
	want := sampleScrub()[0]
	d := s.disk(uuid.UUID{1}, time.Now())
	if string(d.cursor) != "o\x00\xff" || !d.Began.Equal(want.Began) || !d.Ended.Equal(want.Ended) || d.Bytes != 7 || d.Fragments != 3 || d.Bad != 1 || d.Resting {
		t.Errorf("%x, %+v", d.cursor, d.ScrubProgress)
	}
	if s.disk(uuid.UUID{2}, time.Now()) != known || !s.loaded {
		t.Error("what was known is no longer")
	}
}

// At what pace a disk is read back: what is left in the time that is left, no slower
// than a whole round takes, no faster than what catches up may.
func TestScrubPace(t *testing.T) {
	const period, total = 100 * time.Second, 1000
	began := time.Unix(1000, 0)
	for _, row := range []struct {
		what string
		at   time.Duration
		read uint64
		want float64
	}{
		{"it begins", 0, 0, 10},
		{"as it should", 50 * time.Second, 500, 10},
		{"ahead", 50 * time.Second, 900, 10},
		{"behind", 50 * time.Second, 0, 20},
		{"more was read than there is", 50 * time.Second, 5000, 10},
		{"far behind", 99 * time.Second, 0, 10 * scrubCatchUp},
		{"late", 500 * time.Second, 999, 10 * scrubCatchUp},
	} {
		if got := scrubPace(began.Add(row.at), began, period, row.read, total); got != row.want {
			t.Errorf("%s: %v bytes a second, not %v", row.what, got, row.want)
		}
	}
}

// After a long time without a scrub, a disk is due a burst at most. After the clock was set
// back it is due no more than before. A round that has ended rests until its time is over.
func TestScrubDue(t *testing.T) {
	const period, total = 1000 * time.Second, 1 << 40
	s := scrubState{disks: map[uuid.UUID]*scrubDisk{}}
	now := time.Unix(100_000, 0)
	d := s.disk(uuid.UUID{1}, now)
	if !s.due(d, now, period, total) {
		t.Error("the first fragment is not due at once")
	}
	now = now.Add(500 * time.Second) // a suspended machine
	s.due(d, now, period, total)
	if d.credit > scrubBurst {
		t.Errorf("%v bytes are due at once", d.credit)
	}
	now = now.Add(-400_000 * time.Second)
	d.credit = 0
	if s.due(d, now, period, total); d.credit > 1 || d.Began.After(now) {
		t.Errorf("the clock was set back: %v bytes are due, of a round from %v on", d.credit, d.Began)
	}
	now = now.Add(time.Second)
	d.rest = now.Add(time.Second)
	if s.due(d, now, period, total) {
		t.Error("it is due while it is left alone")
	}
	d.rest = time.Time{}
	s.pass(d, []byte("k"), 1, 1, 0)
	s.end(d, now)
	if s.due(d, now.Add(period/2), period, total) || d.cursor != nil || !d.Resting {
		t.Errorf("a round that has ended: %+v", d.ScrubProgress)
	}
	now = now.Add(2 * period)
	if !s.due(d, now, period, total) || d.Resting || d.Bytes != 0 || !d.Began.Equal(now) || d.Ended.IsZero() {
		t.Errorf("the next round: %+v", d.ScrubProgress)
	}
}
