package embedded

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"openvstorage/alba/asd"
	"openvstorage/alba/client"
	"openvstorage/alba/fragmentcache"
	"openvstorage/alba/health"
	"openvstorage/alba/maintenance"

	"github.com/prometheus/client_golang/prometheus"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ovs_"+name, help, labels, nil)
}

// The metrics of a Backend. Counts are since the start.
var (
	descPut        = desc("alba_put_bytes_total", "Bytes of objects that were put.")
	descWritten    = desc("alba_written_bytes_total", "Bytes written for objects, by cause.", "cause")
	descRetries    = desc("alba_put_retries_total", "Attempts to put an object that were begun again.")
	descNarrow     = desc("alba_narrow_puts_total", "Objects that were accepted below full width.")
	descLate       = desc("alba_late_fragments_total", "Fragments that were entered after the commit.")
	descLateBytes  = desc("alba_late_bytes", "Bytes of chunks that late fragments keep in memory.")
	descReads      = desc("alba_reads_total", "Ranges that were read, by how.", "how")
	descReadBytes  = desc("alba_read_bytes_total", "Bytes read from disks.")
	descUnreadable = desc("alba_unreadable_total", "Ranges that could not be read or made.")

	descHealth   = desc("alba_health", "1 for the state that the backend is in.", "state")
	descUsed     = desc("alba_used_bytes", "Bytes used of the disks that are there.")
	descCapacity = desc("alba_capacity_bytes", "Bytes that they have; a file system that several share counts once.")
	descFailed   = desc("alba_failed_reads", "Objects that could not be read when that was tried last, though their disks are there.")

	descObjects = desc("alba_objects", "Objects in the backend.")
	descBelow   = desc("alba_objects_below_full_width", "Objects that lack a fragment.")
	descMayDie  = desc("alba_disks_that_may_die", "Disks that may die more before an object is lost.")

	descRepaired      = desc("maintenance_repaired_fragments_total", "Fragments that were made again.")
	descRepairedBytes = desc("maintenance_repaired_bytes_total", "Bytes of fragments that were made again.")
	descMoved         = desc("maintenance_moved_fragments_total", "Fragments that were moved to where they are better.")
	descMovedBytes    = desc("maintenance_moved_bytes_total", "Bytes of those.")
	descDeleted       = desc("maintenance_deleted_fragments_total", "Fragments that no object named any more.")
	descOrphans       = desc("maintenance_orphans_total", "Of them, those that no object ever named.")
	descScrubbed      = desc("maintenance_scrubbed_fragments_total", "Fragments read back by the scrub.")
	descScrubbedBytes = desc("maintenance_scrubbed_bytes_total", "Bytes of those.")
	descBad           = desc("maintenance_bad_fragments_total", "Fragments found missing or bad.")
	descFailures      = desc("maintenance_failures_total", "Steps of maintenance that failed.")
	descDropped       = desc("maintenance_dropped_reports_total", "Reports of bad fragments that were dropped, too many being there.")
	descWaiting       = desc("maintenance_objects", "Objects that are not repaired, by what they wait for.", "for")

	descDiskState     = desc("disk_state", "1 for the state that a disk is in.", "disk", "state")
	descDiskSince     = desc("disk_trouble_seconds", "For how long a disk has been slow or failing; 0 if it is not.", "disk")
	descDiskUsed      = desc("disk_used_bytes", "Bytes used of a disk.", "disk")
	descDiskCapacity  = desc("disk_capacity_bytes", "Bytes that a disk has.", "disk")
	descDiskFragments = desc("disk_fragments", "Fragments of objects on a disk.", "disk")
	descDiskErrors    = desc("disk_errors_total", "Reads and writes of a disk that failed.", "disk")
	descDiskRefused   = desc("disk_refused_writes_total", "Writes that a disk had no room for.", "disk")
	descDiskCorrupt   = desc("disk_corrupt_total", "Reads of a disk that found bad bytes.", "disk")

	descASDWritten  = desc("asd_written_bytes_total", "Bytes written by an ASD, by cause.", "disk", "cause")
	descASDRead     = desc("asd_read_bytes_total", "Bytes read by an ASD.", "disk")
	descASDSyncs    = desc("asd_syncs_total", "Syncs of an ASD.", "disk")
	descASDBatches  = desc("asd_batches_total", "Batches written by an ASD.", "disk")
	descASDIndex    = desc("asd_index_bytes", "Memory of an ASD's index.", "disk")
	descASDSegments = desc("asd_segments", "Segment files of an ASD.", "disk")
	descASDDead     = desc("asd_dead_bytes", "Bytes of segments that hold nothing any more.", "disk")
	descASDFiles    = desc("asd_open_files", "Segment files that all ASDs have open for reading.")
	descASDFilesMax = desc("asd_open_files_limit", "How many they keep open.")
	descASDOpened   = desc("asd_opened_files_total", "Segment files that were opened for reading.")

	descCacheBytes   = desc("fragment_cache_bytes", "Bytes of the fragment cache's files.")
	descCacheLimit   = desc("fragment_cache_limit_bytes", "Bytes that they may take.")
	descCacheIndex   = desc("fragment_cache_index_bytes", "Memory of the fragment cache's index.")
	descCacheGets    = desc("fragment_cache_gets_total", "Ranges asked for, by whether they were there.", "result")
	descCacheWritten = desc("fragment_cache_written_bytes_total", "Bytes written to the fragment cache.")
	descCacheEvicted = desc("fragment_cache_evicted_bytes_total", "Bytes removed to make room.")
	descCacheBad     = desc("fragment_cache_bad_total", "Ranges that were bad, or that the disk did not give.")
	descCacheOff     = desc("fragment_cache_off", "1 while nothing is written, as a write failed.")

	descScrubBytes = desc("disk_scrub_bytes", "Bytes of a disk read back in this round of the scrub.", "disk")
	descScrubOf    = desc("disk_scrub_of_bytes", "Bytes that there are to be read back.", "disk")
	descScrubBegan = desc("disk_scrub_began_timestamp_seconds", "When this round began.", "disk")
	descScrubEnded = desc("disk_scrub_ended_timestamp_seconds", "When the last whole round ended, 0: there was none.", "disk")

	descGroupState = desc("group_state", "1 for the state that a group is in.", "group", "state")
)

// statusTimeout bounds how long metrics wait for the groups. What they do not
// tell in time is left out.
const statusTimeout = 5 * time.Second

// sink takes metrics.
type sink chan<- prometheus.Metric

func (s sink) count(d *prometheus.Desc, v uint64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (s sink) flag(d *prometheus.Desc, on bool, labels ...string) {
	v := 0.0
	if on {
		v = 1
	}
	s.gauge(d, v, labels...)
}

// Describe implements prometheus.Collector. It describes nothing, as the metrics depend
// on the disks.
func (b *Backend) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (b *Backend) Collect(ch chan<- prometheus.Metric) {
	s := sink(ch)
	collectClient(s, b.Client.Stats())
	collectMaintenance(s, b.work.Stats())
	var cached fragmentcache.Stats // zeros if there is no cache
	if b.cache != nil {
		cached = b.cache.Stats()
	}
	collectCache(s, cached, b.opt.CacheBytes)
	asds := b.asds.all()
	for _, number := range slices.Sorted(maps.Keys(asds)) {
		collectASD(s, strconv.FormatUint(number, 10), asds[number].Stats())
	}
	collectFiles(s, b.files.Stats())
	for _, spec := range Specs() {
		collectGroup(s, spec.Name, b.groups)
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	if st, disks, err := b.status(ctx); err == nil {
		for _, d := range disks {
			collectDisk(s, d)
		}
		collectStatus(s, st)
	}
}

func collectStatus(s sink, st Status) {
	for _, state := range health.BackendStates {
		s.flag(descHealth, st.Health == state, string(state))
	}
	for _, g := range st.Groups {
		for _, state := range health.GroupStates {
			s.flag(descGroupState, g.State == state, g.Name, string(state))
		}
	}
	s.gauge(descUsed, float64(st.Used))
	s.gauge(descCapacity, float64(st.Capacity))
	s.gauge(descFailed, float64(st.Failed))
	s.gauge(descObjects, float64(st.Objects))
	s.gauge(descBelow, float64(st.Narrow))
	s.gauge(descMayDie, float64(st.MayDie))
}

func collectFiles(s sink, files asd.DescriptorStats) {
	s.gauge(descASDFiles, float64(files.Open))
	s.gauge(descASDFilesMax, float64(files.Max))
	s.count(descASDOpened, files.Opened)
}

func collectClient(s sink, c client.Stats) {
	s.count(descPut, c.Plain)
	s.count(descWritten, c.Data, "data")
	s.count(descWritten, c.Parity, "parity")
	s.count(descWritten, c.Inline, "inline")
	s.count(descWritten, c.Manifests, "manifest")
	s.count(descRetries, c.Retries)
	s.count(descNarrow, c.Narrow)
	s.count(descLate, c.Late)
	s.gauge(descLateBytes, float64(c.LateBytes))
	s.count(descReads, c.Reads, "disk")
	s.count(descReads, c.CacheHits, "cache")
	s.count(descReads, c.Hedged, "hedged")
	s.count(descReads, c.Degraded, "degraded")
	s.count(descReadBytes, c.ReadBytes)
	s.count(descUnreadable, c.Unreadable)
}

func collectMaintenance(s sink, m maintenance.Stats) {
	s.count(descRepaired, m.Repaired)
	s.count(descRepairedBytes, m.RepairedBytes)
	s.count(descMoved, m.Moved)
	s.count(descMovedBytes, m.MovedBytes)
	s.count(descDeleted, m.Deleted)
	s.count(descOrphans, m.Orphans)
	s.count(descScrubbed, m.Scrubbed)
	s.count(descScrubbedBytes, m.ScrubbedBytes)
	s.count(descBad, m.Bad)
	s.count(descFailures, m.Failures)
	s.count(descDropped, m.Dropped)
	s.gauge(descWaiting, float64(m.Waiting), "repair")
	s.gauge(descWaiting, float64(m.NoPlace), "place")
	s.gauge(descWaiting, float64(m.Unreadable), "disks")
}

// collectCache tells of the fragment cache. limit is in bytes.
func collectCache(s sink, c fragmentcache.Stats, limit int64) {
	s.gauge(descCacheBytes, float64(c.Bytes))
	s.gauge(descCacheLimit, float64(limit))
	s.gauge(descCacheIndex, float64(c.IndexBytes))
	s.count(descCacheGets, c.Hits, "hit")
	s.count(descCacheGets, c.Misses, "miss")
	s.count(descCacheWritten, c.Written)
	s.count(descCacheEvicted, c.Evicted)
	s.count(descCacheBad, c.Corrupt+c.ReadErrors)
	s.flag(descCacheOff, c.Off)
}

func collectDisk(s sink, d OSD) {
	disk := strconv.FormatUint(d.Number, 10)
	for _, state := range health.DiskStates {
		s.flag(descDiskState, d.State == state, disk, string(state))
	}
	since := 0.0
	if d.Since != nil {
		since = time.Since(*d.Since).Seconds()
	}
	s.gauge(descDiskSince, since, disk)
	s.gauge(descDiskUsed, float64(d.Used), disk)
	s.gauge(descDiskCapacity, float64(d.Capacity), disk)
	s.gauge(descDiskFragments, float64(d.Fragments), disk)
	s.count(descDiskErrors, d.Errors, disk)
	s.count(descDiskRefused, d.Refused, disk)
	if r := d.Scrub; r != nil {
		s.gauge(descScrubBytes, float64(r.Bytes), disk)
		s.gauge(descScrubOf, float64(r.Of), disk)
		s.gauge(descScrubBegan, float64(r.Began.Unix()), disk)
		ended := 0.0
		if r.Ended != nil {
			ended = float64(r.Ended.Unix())
		}
		s.gauge(descScrubEnded, ended, disk)
	}
	s.count(descDiskCorrupt, d.Corrupt, disk)
}

func collectASD(s sink, disk string, a asd.Stats) {
	s.count(descASDWritten, a.ValueBytes, disk, "value")
	s.count(descASDWritten, a.HeadBytes, disk, "head")
	s.count(descASDWritten, a.TombstoneBytes, disk, "delete")
	s.count(descASDWritten, a.CompactBytes, disk, "compaction")
	s.count(descASDWritten, a.IndexBytes, disk, "index")
	s.count(descASDRead, a.ReadBytes, disk)
	s.count(descASDSyncs, a.Syncs, disk)
	s.count(descASDBatches, a.Batches, disk)
	s.gauge(descASDIndex, float64(a.IndexMemory), disk)
	s.gauge(descASDSegments, float64(a.Segments), disk)
	s.gauge(descASDDead, float64(a.Dead), disk)
}
