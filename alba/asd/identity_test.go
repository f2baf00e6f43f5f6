package asd

import (
	"errors"
	"testing"

	"openvstorage/internal/disk/crashdisk"

	"github.com/google/uuid"
)

// A closed ASD is not claimed: the directory may be another process's by then, with an
// owner of its own.
func TestClosedIsNotClaimed(t *testing.T) {
	fs := crashdisk.New()
	if err := errors.Join(fs.MkdirAll("/asd", 0o755), Create(fs, "/asd", testID)); err != nil {
		t.Fatal(err)
	}
	a, err := Open(Options{FS: fs, Dir: "/asd"})
	if err == nil {
		err = a.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := a.ownership.claim(uuid.New()); err == nil {
		t.Error("a closed ASD was claimed")
	}
	if id, err := ReadIdentity(fs, "/asd"); err != nil || id.Owner != uuid.Nil {
		t.Errorf("owner %v, %v", id.Owner, err)
	}
}
