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
