package registry

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/uuid"
)

// TestRestored: the epochs of a restored registry go on behind those that owners may have
// claimed since the backup (P4); nothing else of a record changes.
func TestRestored(t *testing.T) {
	r := Record{ID: uuid.UUID{1}, Name: "v", Parent: uuid.UUID{2}, Epoch: 7, Created: time.Unix(5, 6).UTC(), Host: uuid.UUID{3}, Owner: "me", Deleting: true}
	now, got, err := Restored(idKey(r.ID), encodeValue(&r), 1<<32)
	if err != nil {
		t.Fatal(err)
	}
	want := r
	want.Epoch = 7 + 1<<32
	if read, err := decodeValue(r.ID, now); err != nil || read != want || *got != want {
		t.Errorf("%+v, %+v, %v", read, got, err)
	}
	if same, none, err := Restored(nameKey("v"), r.ID[:], 1<<32); err != nil || none != nil || !bytes.Equal(same, r.ID[:]) {
		t.Errorf("another key: %v, %v", none, err)
	}
	far := r
	far.Epoch = 1 << 63
	for name, c := range map[string]struct{ key, value []byte }{
		"cut": {idKey(r.ID), now[:50]}, "no epoch": {idKey(r.ID), encodeValue(&far)}, "key": {append(idKey(r.ID), 1), now},
	} {
		if _, _, err := Restored(c.key, c.value, 1<<32); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

// TestIntentIn: what is half done in a backup is found by its key.
func TestIntentIn(t *testing.T) {
	in := Intent{ID: uuid.UUID{1}, Kind: Make, Epoch: 1, Host: uuid.UUID{3}, Begun: time.Unix(5, 6).UTC()}
	got, err := IntentIn(intentKey(in.ID), in.encode())
	if err != nil || got == nil || got.ID != in.ID || got.Kind != Make {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := IntentIn(idKey(in.ID), nil); err != nil || got != nil {
		t.Errorf("another key: %+v, %v", got, err)
	}
	for _, key := range [][]byte{intentKey(in.ID)[:9], append(intentKey(in.ID), 1)} {
		if _, err := IntentIn(key, in.encode()); err == nil {
			t.Errorf("key %q is taken", key)
		}
	}
}
