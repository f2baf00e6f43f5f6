// Package nsmtest holds user functions' state in memory: a replica without a
// cluster, for tests of the managers and of what stands on them.
package nsmtest
