package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"openvstorage/backend"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/pebblefs"
	"openvstorage/metadata"
	"openvstorage/metadata/pebblestore"
	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/pageobject"

	"github.com/google/uuid"
)

// pageStore is the local page store with the backend behind it: a page that
// the local store has lost or damaged comes from the page object that a
// checkpoint put, and is saved again.
type pageStore struct {
	metadata.Store // the local one
	opt            pageOptions
	files          *pebblefs.FS
	local          *pebblestore.Store
}

// pageOptions say where the local page store is, and what it needs of its host.
type pageOptions struct {
	fs  disk.FS
	dir string
	log *slog.Logger
	// owner returns the vDisk whose pages have the id, nil if it is not there.
	owner func(id uuid.UUID) *Volume
	// failed is called when the local store is lost: it takes nothing any more.
	failed func(error)
	// lacks is called again and again while the local store finds no room.
	lacks func(error)
}

// LoadPage implements metadata.Store.
func (s *pageStore) LoadPage(ctx context.Context, owner uuid.UUID, number uint64, buf []byte) ([]byte, error) {
	b, err := s.Store.LoadPage(ctx, owner, number, buf)
	if err == nil {
		err = metadata.CheckPage(b, owner, number)
	}
	if err == nil {
		return b, nil
	}
	ns, obj, ok := s.find(owner, number)
	if !ok {
		return nil, err
	}
	b, berr := readPage(ctx, ns, owner, obj, number)
	if berr == nil {
		berr = metadata.CheckPage(b, owner, number)
	}
	if berr != nil {
		return nil, errors.Join(err, fmt.Errorf("and from the backend: %w", berr))
	}
	s.opt.log.Warn("map page rebuilt from the backend", "vdisk", owner, "page", number, "err", err)
	if err := s.Store.SavePages(ctx, owner, []metadata.EncodedPage{{Number: number, Bytes: b}}); err != nil {
		s.opt.log.Warn("rebuilt map page not saved", "vdisk", owner, "page", number, "err", err)
	}
	return b, nil
}

// find returns the page object that holds a page of an open vDisk, and its namespace.
func (s *pageStore) find(owner uuid.UUID, page uint64) (backend.Namespace, catalog.PageObject, bool) {
	v := s.opt.owner(owner)
	if v == nil {
		return nil, catalog.PageObject{}, false
	}
	obj, ok := v.cat.current().PageObject(page)
	return v.namespace(), obj, ok
}

// readPage reads one page of a page object.
func readPage(ctx context.Context, ns backend.Namespace, owner uuid.UUID, obj catalog.PageObject, number uint64) ([]byte, error) {
	entries, err := readIndex(ctx, ns, owner, obj.Number)
	if err != nil {
		return nil, err
	}
	e, ok := pageobject.Find(entries, number)
	if !ok {
		return nil, fmt.Errorf("%s: %w: page %d", pageobject.Name(obj.Number), metadata.ErrPageNotFound, number)
	}
	if e.Length > metadata.MaxPageSize {
		return nil, fmt.Errorf("%s: %w: page %d of %d bytes", pageobject.Name(obj.Number), backend.ErrCorrupt, number, e.Length)
	}
	b := make([]byte, e.Length)
	return b, get(ctx, ns, pageobject.Name(obj.Number), b, e.Offset)
}

func readIndex(ctx context.Context, ns backend.Namespace, owner uuid.UUID, object uint64) ([]pageobject.Entry, error) {
	name := pageobject.Name(object)
	head := make([]byte, pageobject.HeaderSize)
	if err := get(ctx, ns, name, head, 0); err != nil {
		return nil, err
	}
	h, err := pageobject.DecodeHeader(head, owner)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	index := make([]byte, h.IndexSize())
	if err := get(ctx, ns, name, index, pageobject.HeaderSize); err != nil {
		return nil, err
	}
	return h.DecodeIndex(index)
}

// get fills p from an object, all of it or an error.
func get(ctx context.Context, ns backend.Namespace, name string, p []byte, off int64) error {
	n, err := ns.Get(ctx, name, p, off)
	if n == len(p) && (err == nil || errors.Is(err, io.EOF)) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("object %s at %d: %w", name, off, err)
}
