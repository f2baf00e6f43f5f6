package members

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"openvstorage/arakoon"
	"openvstorage/internal/disk/crashdisk"
)

// A group says that it goes on without a member. That is a reason to delete the member's files
// only if it is the group that had it: one that was restored from an older backup knows less.
func TestRemovedOfAnotherLife(t *testing.T) {
	fs := crashdisk.New()
	m, _ := open(t, fs, uuid.Nil)
	n, err := arakoon.Open(arakoon.Options{FS: fs, Dir: "/abm", Cluster: uuid.UUID{9}, Member: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	g := m.all["abm"]
	g.member.Store(1)
	g.node.Store(n)
	life := func(life, revision uint64) {
		t.Helper()
		r, of := three()
		of.Life, of.Next, r.Revision = life, 9, revision
		r.PutGroup(of)
		if err := m.take(r); err != nil {
			t.Fatal(err)
		}
	}
	life(0, 1)
	if gone, err := m.removed(t.Context(), "abm", 5); !gone || err != nil {
		t.Errorf("%v, %v", gone, err)
	}
	life(1, 2)
	if gone, err := m.removed(t.Context(), "abm", 5); gone || err == nil || !strings.Contains(err.Error(), "its files stay") {
		t.Errorf("a member of an older life: %v, %v", gone, err)
	}
}
