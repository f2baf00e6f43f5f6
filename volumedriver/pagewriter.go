package volumedriver

import (
	"context"

	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/pageobject"
)

// pageWriter cuts a row of pages into objects. Together the objects cover every page
// number from first on, so that a page is found by the range that its number is in.
type pageWriter struct {
	cat     *ownedCatalog
	first   uint64
	b       pageobject.Builder
	objects []catalog.PageObject
}

// add adds a page, whose number is above those before.
func (w *pageWriter) add(ctx context.Context, number uint64, page []byte) error {
	if w.b.Size()+len(page) > pageobject.SizeMax && w.b.Len() > 0 {
		if err := w.put(ctx, number); err != nil {
			return err
		}
	}
	w.b.Add(number, page)
	return nil
}

// put puts the gathered pages as the object that covers the numbers below end.
func (w *pageWriter) put(ctx context.Context, end uint64) error {
	if w.b.Len() == 0 {
		return nil
	}
	n, err := w.cat.objectNumber(ctx)
	if err != nil {
		return err
	}
	data := w.b.Object(w.cat.id, n, w.cat.host.opt.Random())
	if err := w.cat.putObject(ctx, pageobject.Name(n), data); err != nil {
		return err
	}
	w.cat.count.uploaded.Add(uint64(len(data)))
	w.objects = append(w.objects, catalog.PageObject{Number: n, First: w.first, End: end, Pages: uint32(w.b.Len()), Size: int64(len(data))})
	w.first, w.b = end, pageobject.Builder{}
	return nil
}
