// Command plan says what a morning needs: how many nodes, how much memory, disk
// and network, and what is left for the origin.
//
//	go run ./bench/plan -students 2000000
//
// Calculator and simulation see the same morning from two sides. The calculator
// (calculate) works with densities: how many students come and press in each
// second, what a request costs by what was measured, Little's law. The simulation
// (simulate) plays every student of that morning, as the demo's bell plans them,
// one request after the other through nodes with cores and queues and an origin
// with workers, and counts. A test holds both to each other: totals within 2 %,
// peaks within 10 % and what chance explains, requests at the origin for what is
// shared within 15 %.
//
// It promises to print every assumption beside what follows from it, to be the
// same for the same seed, and to take seconds for two million students.
//
// It does not promise that a school's morning is the demo's: give it your own
// numbers (-h). Costs come from costs.json, measured by bench/compare -scale and
// dated; -costs takes those of another machine. Nodes are planned for half of
// their CPU, and one more than needed stands by, because a morning is no
// average.
//
// Start reading at calculate, then simulate.
package main
