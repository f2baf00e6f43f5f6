package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/trust"
)

// Files of the passphrase in DIR/trust. While it is changed there are both: newFile has the
// one that is about to be that of the authority, or is it already.
const (
	passphraseFile = "passphrase"
	newFile        = "passphrase-next"
)

// keyed is a host and the authority's key.
type keyed struct{ *Host }

func keyOf(h *Host) keyed { return keyed{h} }

// passphraseBytes is how many random bytes a passphrase that is made here has.
const passphraseBytes = 20

// unseal opens the authority's key in this process.
func (h keyed) unseal(ctx context.Context) error {
	if err := h.keying.Take(ctx); err != nil {
		return err
	}
	defer h.keying.Give()
	return h.unsealAlone(ctx)
}

// unsealAlone is unseal for whoever has the lock.
func (h keyed) unsealAlone(ctx context.Context) error {
	passphrase, err := h.passphrase(ctx, false)
	if err != nil {
		return err
	}
	err = h.registrar.Open(ctx, passphrase)
	if h.o.Passphrase != nil || !errors.Is(err, trust.ErrPassphrase) {
		return err
	}
	// A crash while it was changed, behind the change of the records.
	next, missing := h.kept(newFile)
	if missing != nil {
		return err
	}
	if again := h.registrar.Open(ctx, next); again != nil {
		return errors.Join(err, again)
	}
	return h.keep(next)
}

// kept reads a passphrase that is kept in the data directory.
func (h keyed) kept(file string) ([]byte, error) {
	b, err := disk.ReadWhole(h.o.FS, h.o.file(file), trust.PassphraseMax+2)
	return bytes.TrimRight(b, "\r\n"), err
}

// keep makes a passphrase, under which the key on record is sealed, the one of the next
// starts. That comes before the file of its change goes.
func (h keyed) keep(passphrase []byte) error {
	if err := disk.ReplaceWhole(h.o.FS, h.o.file(passphraseFile), append(passphrase[:len(passphrase):len(passphrase)], '\n')); err != nil {
		return fmt.Errorf("passphrase of the authority: %w", err)
	}
	if err := h.o.FS.Remove(h.o.file(newFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("passphrase of the authority: %w", err)
	}
	return h.o.FS.SyncDir(h.o.file(""))
}

// passphrase reads the passphrase of the authority. If the user gave none it is in a file,
// which is made only if may is set: nothing is sealed under a passphrase yet.
func (h keyed) passphrase(ctx context.Context, may bool) ([]byte, error) {
	if h.o.Passphrase != nil {
		return h.o.Passphrase(ctx)
	}
	b, err := h.kept(passphraseFile)
	if err == nil {
		return b, nil
	}
	if !errors.Is(err, fs.ErrNotExist) || !may {
		return nil, fmt.Errorf("passphrase of the authority: %w: give --ca-passphrase-file or --ca-passphrase-command, or `ovs ca open`", err)
	}
	random := make([]byte, passphraseBytes)
	if _, err := rand.Read(random); err != nil {
		return nil, fmt.Errorf("passphrase of the authority: %w", err)
	}
	name := h.o.file(passphraseFile)
	text := []byte(strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random)))
	if err := disk.ReplaceWhole(h.o.FS, name, append(text, '\n')); err != nil {
		return nil, fmt.Errorf("passphrase of the authority: %w", err)
	}
	h.o.Logger.Warn("the passphrase of the cluster's authority was made here: whoever has a copy of this whole directory can sign certificates", "file", name, "cure", "have another host sign too, by `ovs ca open`: if this one is lost, no host could join any more")
	return text, nil
}

// How often a host that has joined tries to open the key that it has the passphrase of.
const (
	openAgain = time.Second
	openMost  = time.Minute
)

// openKey opens the authority's key on a host that has joined and has the passphrase, as
// soon as the records can be read. One that has none signs nothing until it is told it.
func (h keyed) openKey() {
	if h.o.Passphrase == nil {
		if _, err := h.kept(passphraseFile); errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
	for wait := openAgain; ; wait = min(2*wait, openMost) {
		err := h.mayHaveKey()
		if err == nil {
			bounded, cancel := context.WithTimeout(h.ctx, openMost)
			err = h.unseal(bounded)
			cancel()
		}
		switch {
		case err == nil:
			h.o.Logger.Info("this host signs certificates: joins and renewals are answered here too")
			return
		case errors.Is(err, trust.ErrPassphrase):
			h.o.Logger.Error("the authority's key stays sealed here: this host signs nothing", "err", err, "cure", "`ovs ca open`, or a start with the passphrase")
			return
		}
		select {
		case <-time.After(wait):
		case <-h.ctx.Done():
			return
		}
		h.faults.tell(fmt.Errorf("the authority's key is not open here yet: %w", err))
	}
}

var errNoKeys = errors.New("this host has not the role arakoon: it keeps no records and signs nothing")

// mayHaveKey refuses what is for hosts with the role arakoon, by what this host knows.
func (h *Host) mayHaveKey() error {
	r, known := h.cache.Host(h.id)
	if h.registrar == nil || known && r.Roles&trust.RoleArakoon == 0 || !known && !h.First() {
		return errNoKeys
	}
	return nil
}

// giveKeyUp forgets the authority's key if this host is not to have it any more. Once the host
// may have it again, it opens it as at its start.
func (h keyed) giveKeyUp() {
	r, known := h.cache.Host(h.id)
	switch {
	case !known:
		return
	case r.State == trust.Joined && r.Roles&trust.RoleArakoon != 0:
		if h.gaveUp.Swap(false) && !h.canSign() {
			h.work.Go(h.openKey)
		}
		return
	case !h.canSign():
		return
	}
	h.registrar.Close()
	h.gaveUp.Store(true)
	h.o.Logger.Warn("this host signs no more: it was removed, or has lost the role arakoon", "roles", r.Roles.String())
}
