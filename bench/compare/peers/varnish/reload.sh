# A second copy of the same rules, and from then on that one.
PATH=$PATH:/usr/sbin
varnishadm -n {{.Dir}}/work vcl.load again {{.Dir}}/default.vcl && varnishadm -n {{.Dir}}/work vcl.use again
