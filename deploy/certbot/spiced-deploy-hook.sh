#!/bin/sh
# Copies a certificate of certbot for spiced, whose user cannot read /etc/letsencrypt. spiced reloads it without a
# restart.
#
#   install -m 0755 spiced-deploy-hook.sh /etc/letsencrypt/renewal-hooks/deploy/spiced
#   /etc/letsencrypt/renewal-hooks/deploy/spiced /etc/letsencrypt/live/NAME        once, by hand
#
# Then certbot runs it after each renewal, with RENEWED_LINEAGE and RENEWED_DOMAINS. Settings, in
# /etc/default/spiced-certbot (SPICED_CERTBOT_CONF), in shell syntax:
#
#   SPICED_CERT_NAME=        the certificate (certbot certificates); others are ignored. Unset: the first one seen
#   SPICED_CERT_DIR=/etc/spiced/tls
#   SPICED_CERT_OWNER=spiced
#   SPICED_CERT_GROUP=       of both files; default: the owner's group
#   SPICED_KEY_MODE=0600     or 0640, if root is the owner and the group may read
#
# In that directory, fullchain.pem and privkey.pem are links through ..data to a directory per version, like a
# Kubernetes volume: one rename replaces both, so a reader sees the old pair or the new one. An unchanged certificate
# changes nothing.

set -eu
umask 077

say() { printf 'spiced-deploy-hook: %s\n' "$*"; }
fail() {
    say "$*" >&2
    exit 1
}

configuration=${SPICED_CERTBOT_CONF:-/etc/default/spiced-certbot}
if [ -f "$configuration" ]; then
    # shellcheck source=/dev/null
    . "$configuration"
fi

lineage=${1:-${RENEWED_LINEAGE:-}}
lineage=${lineage%/}
[ -n "$lineage" ] || fail "which certificate? RENEWED_LINEAGE is not set; by hand: $0 /etc/letsencrypt/live/NAME"
name=${lineage##*/}
if [ -n "${SPICED_CERT_NAME:-}" ] && [ "$SPICED_CERT_NAME" != "$name" ]; then
    say "$name is left alone: SPICED_CERT_NAME is $SPICED_CERT_NAME"
    exit 0
fi

folder=${SPICED_CERT_DIR:-/etc/spiced/tls}
owner=${SPICED_CERT_OWNER:-spiced}
id -u "$owner" >/dev/null 2>&1 || fail "there is no user $owner: useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin $owner"
group=${SPICED_CERT_GROUP:-$(id -g "$owner")}
mode=${SPICED_KEY_MODE:-0600}
case $mode in
    0600 | 600) ;;
    # The rule of PostgreSQL and of spiced.
    0640 | 640) [ "$(id -u "$owner")" = 0 ] || fail "SPICED_KEY_MODE=$mode is for a key that root owns: SPICED_CERT_OWNER=root SPICED_CERT_GROUP=…" ;;
    *) fail "SPICED_KEY_MODE is 0600 or 0640, not $mode" ;;
esac

for file in fullchain.pem privkey.pem; do
    [ -s "$lineage/$file" ] || fail "$lineage/$file is not there, or empty"
done

(umask 022 && mkdir -p "$folder")
# Concurrent runs would remove each other's versions.
if command -v flock >/dev/null 2>&1; then
    exec 9<"$folder"
    flock 9
fi
if [ -f "$folder/..data/lineage" ]; then
    read -r before <"$folder/..data/lineage"
    [ "$before" = "$name" ] || [ -n "${SPICED_CERT_NAME:-}" ] ||
        fail "$folder has the certificate $before, and this is $name: say which in $configuration (SPICED_CERT_NAME=$name)"
fi

# The new version, complete before it becomes visible.
new=$(mktemp -d "$folder/..version.XXXXXX")
trap 'rm -rf "$new" "$new.link"' EXIT
trap 'exit 1' HUP INT TERM
cat "$lineage/fullchain.pem" >"$new/fullchain.pem"
cat "$lineage/privkey.pem" >"$new/privkey.pem"
printf '%s\n' "$name" >"$new/lineage"
if command -v openssl >/dev/null 2>&1; then
    # Certbot may be between its two links.
    of_certificate=$(openssl x509 -in "$new/fullchain.pem" -noout -pubkey) || fail "$lineage/fullchain.pem is no certificate"
    of_key=$(openssl pkey -in "$new/privkey.pem" -pubout) || fail "$lineage/privkey.pem is no key"
    [ "$of_certificate" = "$of_key" ] || fail "$lineage: privkey.pem is not the key of fullchain.pem"
fi
chown "$owner:$group" "$new/fullchain.pem" "$new/privkey.pem"
chmod 0644 "$new/fullchain.pem" "$new/lineage"
chmod "$mode" "$new/privkey.pem"
chmod 0755 "$new"

# What is compared: content, owner, group and mode.
# shellcheck disable=SC2012
state() { (cd "$1" && ls -nL fullchain.pem privkey.pem | awk '{ print $1, $3, $4 }' && cat fullchain.pem privkey.pem lineage); }
if [ -L "$folder/fullchain.pem" ] && [ -L "$folder/privkey.pem" ] && [ -d "$folder/..data" ] &&
    [ "$(state "$folder/..data" 2>/dev/null)" = "$(state "$new")" ]; then
    say "$folder has it already: $name"
    exit 0
fi

ln -s "${new##*/}" "$new.link"
# -T: replaces a link to a directory instead of moving into the directory. BSD: -h.
mv -T "$new.link" "$folder/..data" 2>/dev/null || mv -h "$new.link" "$folder/..data"
trap - EXIT
for file in fullchain.pem privkey.pem; do
    [ -L "$folder/$file" ] || ln -sf "..data/$file" "$folder/$file"
done
# Old versions, and what a killed run left.
for old in "$folder"/..version.*; do
    [ "$old" = "$new" ] || rm -rf "$old"
done
say "$folder has $name now${RENEWED_DOMAINS:+ ($RENEWED_DOMAINS)}"
