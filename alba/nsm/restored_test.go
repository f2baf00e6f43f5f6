package nsm

import (
	"bytes"
	"testing"

	"openvstorage/alba/nsm/record"
)

// TestRestored: the open gc epochs of a restored namespace are above all that were opened, at
// the backup or since, and one is open; its versions go on behind those that were given.
func TestRestored(t *testing.T) {
	n := &Namespace{State: NamespaceActive, Created: 1, Epochs: Epochs{Minimum: 3, Next: 5}, NextVersion: 70, Objects: 2, Size: 8, Stored: 12}
	value, err := record.Encode(1, n)
	if err != nil {
		t.Fatal(err)
	}
	now, err := Restored(namespaceKey(6), value, 1<<32)
	if err != nil {
		t.Fatal(err)
	}
	var got Namespace
	if err := record.Decode(now, 1, &got); err != nil {
		t.Fatal(err)
	}
	want := *n
	want.Epochs, want.NextVersion = Epochs{Minimum: 5 + 1<<32, Next: 6 + 1<<32}, 70+1<<32
	if got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
	if same, err := Restored(objectKey(6, "o"), value, 1<<32); err != nil || !bytes.Equal(same, value) {
		t.Errorf("another key: %v", err)
	}
	n.Epochs.Next = 1 << 63
	if value, err = record.Encode(1, n); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ key, value []byte }{
		"cut": {namespaceKey(6), value[:9]}, "no epoch": {namespaceKey(6), value}, "key": {append(namespaceKey(6), 1), now},
	} {
		if _, err := Restored(c.key, c.value, 1<<32); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}
