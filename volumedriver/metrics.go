package volumedriver

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// counters are a vDisk's, since it was opened.
type counters struct {
	reads, readBytes   atomic.Uint64
	writes, writeBytes atomic.Uint64
	flushes, trims     atomic.Uint64
	uploaded           atomic.Uint64 // bytes put to the backend
	backendRead        atomic.Uint64 // bytes read from the backend
	stored             atomic.Int64  // bytes of SCOs in the backend
}

func (c *counters) read(n int) {
	c.reads.Add(1)
	c.readBytes.Add(uint64(n))
}

func (c *counters) write(requests, bytes int) {
	c.writes.Add(uint64(requests))
	c.writeBytes.Add(uint64(bytes))
}

var perVolume = []string{"vdisk", "id"}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ovs_"+name, help, labels, nil)
}

// The metrics of a Host: every bound of P5 with what is used of it.
var (
	descReads        = desc("vdisk_reads_total", "Read requests.", perVolume...)
	descReadBytes    = desc("vdisk_read_bytes_total", "Bytes read by users.", perVolume...)
	descWrites       = desc("vdisk_writes_total", "Write requests.", perVolume...)
	descWriteBytes   = desc("vdisk_written_bytes_total", "Bytes written by users.", perVolume...)
	descFlushes      = desc("vdisk_flushes_total", "Flush requests.", perVolume...)
	descTrims        = desc("vdisk_trims_total", "Trim and write-zeroes requests.", perVolume...)
	descUploaded     = desc("vdisk_uploaded_bytes_total", "Bytes put to the backend.", perVolume...)
	descBackendRead  = desc("vdisk_backend_read_bytes_total", "Bytes read from the backend.", perVolume...)
	descBacklog      = desc("vdisk_backlog_bytes", "Bytes written and not in the backend yet.", perVolume...)
	descHalted       = desc("vdisk_halted", "1 if the vDisk is halted.", perVolume...)
	descUnsure       = desc("vdisk_unsure", "1 if the outcome of an operation on the vDisk is not known yet.", perVolume...)
	descStarving     = desc("vdisk_reads_waiting", "Requests that wait for disks of the backend, without which what they read cannot be made.", perVolume...)
	descTLogs        = desc("vdisk_tlog_bytes", "Bytes of TLogs on the local disk.", perVolume...)
	descSlots        = desc("upload_slots", "SCOs that may be uploaded side by side.")
	descSlotsUsed    = desc("upload_slots_in_use", "SCOs being uploaded.")
	descBuffer       = desc("write_buffer_bytes", "Bytes of SCO files in the write buffer, by state.", "state")
	descBufferLimit  = desc("write_buffer_limit_bytes", "Bytes that the write buffer may take: what its file system has room for.")
	descBufferWanted = desc("write_buffer_wanted_bytes", "Bytes that the write buffer takes if there is room, --write-buffer.")
	descBufferLacks  = desc("write_buffer_lacks_room", "1 while something on the file system of the write buffer found no room.")
	descFiles        = desc("write_buffer_files_open", "Files of vDisks in the write buffer that are open.")
	descFilesLimit   = desc("write_buffer_files_open_limit", "Files of vDisks in the write buffer that may be open.")
	descFilesClosed  = desc("write_buffer_files_closed_total", "Files of vDisks that were closed so that others could be opened.")
	descMap          = desc("map_cache_bytes", "Bytes of map pages in memory.")
	descMapLimit     = desc("map_cache_limit_bytes", "Bytes that map pages may take in memory.")
	descMapLoads     = desc("map_page_loads_total", "Map pages loaded from the page store.")
	descMapEvicted   = desc("map_page_evictions_total", "Map pages that left memory.")
	descSums         = desc("checksum_cache_bytes", "Bytes of checksums of stored SCOs in memory.")
	descSumsLimit    = desc("checksum_cache_limit_bytes", "Bytes that checksums of stored SCOs may take in memory.")
)

// Collector exposes the host's metrics to Prometheus.
func (h *Host) Collector() prometheus.Collector { return collector{h} }

type collector struct{ h *Host }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, t prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, value, labels...)
	}
	for _, v := range c.h.table.all() {
		v.collectMetrics(put)
	}
	u := c.h.buffer.Usage()
	put(descBuffer, prometheus.GaugeValue, float64(u.Dirty), "dirty")
	put(descBuffer, prometheus.GaugeValue, float64(u.Evictable), "stored")
	put(descBuffer, prometheus.GaugeValue, float64(u.Free), "free")
	put(descBufferLimit, prometheus.GaugeValue, float64(u.Limit))
	put(descFiles, prometheus.GaugeValue, float64(u.Files))
	put(descFilesLimit, prometheus.GaugeValue, float64(u.FilesLimit))
	put(descFilesClosed, prometheus.CounterValue, float64(u.FilesClosed))
	put(descBufferWanted, prometheus.GaugeValue, float64(u.Wanted))
	lacks := 0.0
	if u.Lacks != nil {
		lacks = 1
	}
	put(descBufferLacks, prometheus.GaugeValue, lacks)
	s := c.h.cache.Stats()
	put(descMap, prometheus.GaugeValue, float64(s.ResidentBytes))
	put(descMapLimit, prometheus.GaugeValue, float64(c.h.opt.MapCache))
	put(descMapLoads, prometheus.CounterValue, float64(s.Loads))
	put(descMapEvicted, prometheus.CounterValue, float64(s.Evictions))
	slots, used := c.h.uploads.used()
	put(descSlots, prometheus.GaugeValue, float64(slots))
	put(descSlotsUsed, prometheus.GaugeValue, float64(used))
	put(descSums, prometheus.GaugeValue, float64(c.h.sums.bytes()))
	put(descSumsLimit, prometheus.GaugeValue, float64(c.h.opt.SumsCache))
}

func (v *Volume) collectMetrics(put func(*prometheus.Desc, prometheus.ValueType, float64, ...string)) {
	labels := []string{v.Name(), v.id.String()}
	for _, m := range []struct {
		d *prometheus.Desc
		n *atomic.Uint64
	}{
		{descReads, &v.count.reads}, {descReadBytes, &v.count.readBytes},
		{descWrites, &v.count.writes}, {descWriteBytes, &v.count.writeBytes},
		{descFlushes, &v.count.flushes}, {descTrims, &v.count.trims},
		{descUploaded, &v.count.uploaded}, {descBackendRead, &v.count.backendRead},
	} {
		put(m.d, prometheus.CounterValue, float64(m.n.Load()), labels...)
	}
	halted, unsure, backlog, tlogs := 0.0, 0.0, int64(0), int64(0)
	switch {
	case v.unsure.Load() != nil || v.cat.doubted() != nil:
		unsure = 1
	case v.Err() != nil:
		halted = 1
	}
	if v.buf != nil {
		backlog, _ = v.buf.Backlog()
		tlogs = v.buf.TLogBytes()
	}
	starving, _, _ := v.diskWaits.waiting()
	put(descStarving, prometheus.GaugeValue, float64(starving), labels...)
	put(descTLogs, prometheus.GaugeValue, float64(tlogs), labels...)
	put(descHalted, prometheus.GaugeValue, halted, labels...)
	put(descUnsure, prometheus.GaugeValue, unsure, labels...)
	put(descBacklog, prometheus.GaugeValue, float64(backlog), labels...)
}
