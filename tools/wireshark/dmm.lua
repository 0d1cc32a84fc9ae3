-- Wireshark: the DMM sub-options of DHCPv6 and the mobility options of RFC 8885 (docs/protocol.md).
--
-- Wireshark's DHCPv6 has no table that a vendor's sub-options could be added to. So a post-dissector reads each message
-- that it found, relayed ones too, and shows ours in a tree of its own. Its Mobile IPv6 has one (mip6.option): RFC 8885's
-- options go there and are shown in their place, and so does the Mobile Node Identifier (8) where it is no NAI; and one
-- for Vendor Specific options (mip6.vsm, RFC 5094), where sub-options stand in a registration's PBA. The D flags of
-- RFC 8885 section 4 are the post-dissector's again.
--
-- What is malformed is so to dmm_wire, too. Written for Wireshark 4.0 (Debian 12).

local dmm = Proto("dmm", "Distributed Mobility Management")
local option_proto = Proto("dmm_option", "Distributed Mobility Management, mobility option")
local vendor_proto = Proto("dmm_vendor", "Distributed Mobility Management, Vendor Specific option")

local RELAY = { [12] = "Relay-forward", [13] = "Relay-reply" }
local SUBOPTION = {
    [1] = "MAAR", [2] = "ATTACHMENT", [3] = "ANCHORED_PREFIX", [4] = "PREVIOUS_MAAR", [5] = "VISIT",
    [6] = "DLIF_LINK_LOCAL", [7] = "DLIF_LINK_LAYER", [8] = "STATUS", [9] = "MOBILE_NODE", [10] = "DOMAIN",
    [11] = "ANCHOR_FAILED", [12] = "SIGNALLING",
}
local STATUS = {
    [0] = "success", [1] = "unknown MAAR", [2] = "endpoint mismatch", [3] = "unknown node", [4] = "identity conflict",
    [5] = "stale", [6] = "unavailable",
}
local MODE = { [0] = "direct", [1] = "relay", [2] = "locator", [3] = "proxy" } -- RFC 8885 sections 3.2 to 3.4
local HANDOFF = { -- RFC 5213 section 8.4
    [0] = "reserved", [1] = "attachment over a new interface", [2] = "between two interfaces", [3] = "between MAGs",
    [4] = "unknown", [5] = "not changed",
}
local ACCESS = { -- RFC 5213 section 8.5
    [0] = "reserved", [1] = "virtual", [2] = "PPP", [3] = "IEEE 802.3", [4] = "IEEE 802.11", [5] = "IEEE 802.16e",
}
local HARDWARE = { [1] = "Ethernet", [6] = "IEEE 802", [27] = "EUI-64" }
local IDENTITY = { -- RFC 4283 section 3.1, RFC 8371 section 6
    [1] = "NAI", [2] = "IPv6 address", [3] = "IMSI", [4] = "P-TMSI", [5] = "EUI-48", [6] = "EUI-64", [7] = "GUTI",
    [8] = "DUID",
}

local field = {
    suboption = ProtoField.uint16("dmm.suboption", "Sub-option", base.DEC, SUBOPTION),
    suboption_length = ProtoField.uint16("dmm.suboption.length", "Length"),
    option = ProtoField.uint8("dmm.option", "Mobility option"),
    option_length = ProtoField.uint8("dmm.option.length", "Length"),
    data = ProtoField.bytes("dmm.data", "Data"),
    pbu = ProtoField.bool("dmm.pbu", "Distributed mobility (D) flag of the Binding Update", 16, nil, 0x0010),
    pba = ProtoField.bool("dmm.pba", "Distributed mobility (D) flag of the Binding Acknowledgement", 8, nil, 0x02),
    maar = ProtoField.ipv6("dmm.maar", "Tunnel endpoint of the MAAR"),
    capabilities = ProtoField.uint16("dmm.capabilities", "Capabilities", base.HEX),
    ipv6_in_ipv6 = ProtoField.bool("dmm.capabilities.ipv6_in_ipv6", "IPv6-in-IPv6", 16, nil, 0x8000),
    pmipv6 = ProtoField.bool("dmm.capabilities.pmipv6", "PMIPv6", 16, nil, 0x4000),
    slaac = ProtoField.bool("dmm.capabilities.slaac", "SLAAC", 16, nil, 0x2000),
    no_sessions = ProtoField.bool("dmm.capabilities.no_sessions", "No sessions", 16, nil, 0x1000),
    age = ProtoField.uint32("dmm.attachment.age", "Age of the attach (ms)"),
    handoff = ProtoField.uint8("dmm.attachment.handoff", "Handoff indicator", base.DEC, HANDOFF),
    access = ProtoField.uint8("dmm.attachment.access", "Access technology", base.DEC, ACCESS),
    hardware = ProtoField.uint16("dmm.hardware", "Link-layer type", base.DEC, HARDWARE),
    link_layer = ProtoField.bytes("dmm.link_layer", "Link-layer address", base.COLON),
    delegated = ProtoField.bool("dmm.prefix.delegated", "Delegated", 8, nil, 0x80),
    awaited = ProtoField.bool("dmm.prefix.awaited", "Awaited: the P-MAAR has not acknowledged yet", 8, nil, 0x40),
    length = ProtoField.uint8("dmm.prefix.length", "Prefix length"),
    preferred = ProtoField.uint32("dmm.prefix.preferred", "Preferred lifetime (s)"),
    valid = ProtoField.uint32("dmm.prefix.valid", "Valid lifetime (s)"),
    prefix = ProtoField.ipv6("dmm.prefix", "Prefix"),
    previous = ProtoField.ipv6("dmm.previous_maar", "P-MAAR"),
    serving = ProtoField.ipv6("dmm.serving_maar", "S-MAAR"),
    left = ProtoField.ipv6("dmm.visit.left", "S-MAAR just left (from a MAAR: who knows of this visit)"),
    generation = ProtoField.uint64("dmm.visit.generation", "Generation", base.HEX),
    time = ProtoField.absolute_time("dmm.visit.time", "Generation as a time", base.UTC),
    link_local = ProtoField.ipv6("dmm.dlif.link_local", "DLIF link-local address"),
    status = ProtoField.uint16("dmm.status", "Status", base.DEC, STATUS),
    text = ProtoField.string("dmm.status.text", "Text"),
    subtype = ProtoField.uint8("dmm.node.subtype", "Identifier subtype", base.DEC, IDENTITY),
    nai = ProtoField.string("dmm.node.nai", "NAI"),
    duid = ProtoField.bytes("dmm.node.duid", "DUID"),
    identifier = ProtoField.bytes("dmm.node.identifier", "Identifier", base.COLON),
    endpoint = ProtoField.ipv6("dmm.domain.maar", "Tunnel endpoint of a MAAR"),
    mode = ProtoField.uint8("dmm.signalling.mode", "Mode of the CMD", base.DEC, MODE),
}
dmm.fields = field

local malformed = ProtoExpert.new("dmm.malformed", "Malformed", expert.group.MALFORMED, expert.severity.ERROR)
local unknown = ProtoExpert.new("dmm.unknown", "Unknown, to be skipped", expert.group.UNDECODED, expert.severity.NOTE)
local misplaced = ProtoExpert.new(
    "dmm.misplaced", "In a client's message, where it means nothing", expert.group.PROTOCOL, expert.severity.WARN
)
dmm.experts = { malformed, unknown, misplaced }

dmm.prefs.enterprise = Pref.uint("Enterprise number", 32473, "`enterprise` of the CMD and the MAARs")

-- Contents. Each takes the tree, a TvbRange, where in it the content is and how long that is, adds fields to the tree,
-- and returns a text for the line above them.

local function complain(tree, what)
    tree:add_proto_expert_info(malformed, what)
end

local function add_prefix(tree, data, length_at, at)
    local length = data(length_at, 1):uint()
    local item = tree:add(field.length, data(length_at, 1))
    if length > 128 then complain(item, "Prefix length above 128") end
    tree:add(field.prefix, data(at, 16))
    return string.format("%s/%d", data(at, 16):ipv6(), length)
end

local function add_address(tree, name, data, at)
    tree:add(field[name], data(at, 16))
    return tostring(data(at, 16):ipv6())
end

local function add_lifetime(tree, name, data, at)
    local item = tree:add(field[name], data(at, 4))
    if data(at, 4):uint() == 0xffffffff then item:append_text(" (infinity)") end
end

local function add_anchored(tree, data, at)
    tree:add(field.delegated, data(at, 1))
    add_lifetime(tree, "preferred", data, at + 4)
    add_lifetime(tree, "valid", data, at + 8)
    return add_prefix(tree, data, at + 1, at + 12)
end

local function add_link_layer(tree, data, at, size)
    if size == 0 then return "" end
    tree:add(field.link_layer, data(at, size))
    return data(at, size):bytes():tohex(true, ":")
end

local SIZES = { -- of identifiers that have not any size (RFC 4283, RFC 8371, RFC 9915 section 11.1)
    [2] = { 16, 16 }, [5] = { 6, 6 }, [6] = { 8, 8 }, [8] = { 3, 130 },
}

local function add_identity(tree, data, at, size)
    local subtype = data(at, 1):uint()
    local value = data(at + 1, size - 1)
    tree:add(field.subtype, data(at, 1))
    local least, most = table.unpack(SIZES[subtype] or { 1, 254 })
    if value:len() < least or value:len() > most then complain(tree, "Identifier of a wrong size") end
    if subtype == 1 then
        tree:add_packet_field(field.nai, value, ENC_UTF_8)
        return "NAI"
    end
    tree:add(subtype == 8 and field.duid or field.identifier, value)
    return string.format("%s %s", IDENTITY[subtype] or subtype, value:bytes():tohex(true))
end

local function add_generation(tree, data, at) -- 48 bits of seconds, 16 of 1/65536 s (RFC 5213 section 8.8)
    local seconds = data(at, 2):uint() * 2 ^ 32 + data(at + 2, 4):uint()
    local nanoseconds = math.floor(data(at + 6, 2):uint() * 1e9 / 65536)
    tree:add(field.generation, data(at, 8))
    tree:add(field.time, data(at, 8), NSTime.new(seconds, nanoseconds))
end

local suboption_list -- below; PREVIOUS_MAAR has sub-options itself

-- Sub-options by code: sizes that are allowed (least, most), content.
local SUBOPTIONS = {
    [1] = { 18, 18, function(tree, data, at)
        local text = add_address(tree, "maar", data, at)
        local flags = tree:add(field.capabilities, data(at + 16, 2))
        flags:add(field.ipv6_in_ipv6, data(at + 16, 2))
        flags:add(field.pmipv6, data(at + 16, 2))
        flags:add(field.slaac, data(at + 16, 2))
        flags:add(field.no_sessions, data(at + 16, 2))
        return text
    end },
    [2] = { 8, 65535, function(tree, data, at, size)
        tree:add(field.age, data(at, 4))
        tree:add(field.handoff, data(at + 4, 1))
        tree:add(field.access, data(at + 5, 1))
        tree:add(field.hardware, data(at + 6, 2))
        return string.format("%d ms ago, %s", data(at, 4):uint(), add_link_layer(tree, data, at + 8, size - 8))
    end },
    [3] = { 28, 28, add_anchored },
    [4] = { 44, 65535, function(tree, data, at, size)
        local prefix = add_anchored(tree, data, at)
        tree:add(field.awaited, data(at, 1))
        local awaited = data(at, 1):bitfield(1) == 1 and ", awaited" or ""
        local endpoint = add_address(tree, "previous", data, at + 28)
        suboption_list(tree, data, at + 44, size - 44, true)
        return string.format("%s at %s%s", prefix, endpoint, awaited)
    end },
    [5] = { 24, 24, function(tree, data, at)
        add_generation(tree, data, at)
        return "left " .. add_address(tree, "left", data, at + 8)
    end },
    [8] = { 2, 65535, function(tree, data, at, size)
        local status = data(at, 2):uint()
        tree:add(field.status, data(at, 2))
        if size > 2 then tree:add_packet_field(field.text, data(at + 2, size - 2), ENC_UTF_8) end
        return string.format("%d (%s)", status, STATUS[status] or "?")
    end },
    [9] = { 2, 65535, add_identity },
    [10] = { 0, 65535, function(tree, data, at, size)
        if size % 16 > 0 then complain(tree, "Not a whole number of addresses") end
        for start = at, at + size - 16, 16 do tree:add(field.endpoint, data(start, 16)) end
        return string.format("%d MAARs", math.floor(size / 16))
    end },
    [11] = { 36, 36, function(tree, data, at)
        local prefix = add_prefix(tree, data, at, at + 4)
        return string.format("%s at %s", prefix, add_address(tree, "previous", data, at + 20))
    end },
    [12] = { 1, 1, function(tree, data, at)
        local mode = data(at, 1):uint()
        tree:add(field.mode, data(at, 1))
        return MODE[mode] or tostring(mode)
    end },
}
local NESTED = {
    [6] = { 16, 16, function(tree, data, at) return add_address(tree, "link_local", data, at) end },
    [7] = { 3, 65535, function(tree, data, at, size)
        tree:add(field.hardware, data(at, 2))
        return add_link_layer(tree, data, at + 2, size - 2)
    end },
}

-- Adds a content, if it is known and its size is right, and its text to the tree's line.
local function content(tree, kind, data, at, size)
    if kind == nil then
        if size > 0 then tree:add(field.data, data(at, size)) end
        tree:add_proto_expert_info(unknown)
    elseif size < kind[1] or size > kind[2] then
        complain(tree, "Wrong size")
    else
        tree:append_text(": " .. kind[3](tree, data, at, size))
    end
end

-- Calls `each(code, start, at, size)` for all options in the octets of `data` from `at`; false if one is cut short.
local function options(data, at, size, each)
    local stop = at + size
    while at < stop do
        if at + 4 > stop then return false end
        local length = data(at + 2, 2):uint()
        if at + 4 + length > stop then return false end
        each(data(at, 2):uint(), at, at + 4, length)
        at = at + 4 + length
    end
    return true
end

local function suboption_name(known, code) return known[code] and SUBOPTION[code] or "Sub-option " .. code end

-- Shows sub-options and returns the names of the known ones.
function suboption_list(tree, data, from, size, nested)
    local names = {}
    local known = nested and NESTED or SUBOPTIONS
    local whole = options(data, from, size, function(code, start, at, length)
        local name = suboption_name(known, code)
        local item = tree:add(dmm, data(start, 4 + length), name)
        item:add(field.suboption, data(start, 2))
        item:add(field.suboption_length, data(start + 2, 2))
        content(item, known[code], data, at, length)
        table.insert(names, name)
    end)
    if not whole then complain(tree, "A sub-option is cut short") end
    return names
end

-- One DHCPv6 message: our option 17 at this level (RFC 9915 section 21.17).
local function message(data, pinfo, tree)
    local size = data:len()
    if size < 4 then return end
    local relay = RELAY[data(0, 1):uint()]
    local header = relay and 34 or 4
    local seen = false
    options(data, header, size - header, function(code, start, at, length)
        if code ~= 17 or length < 4 or data(at, 4):uint() ~= dmm.prefs.enterprise then return end
        local label = "Distributed Mobility Management: " .. (relay or "a client's message")
        local item = tree:add(dmm, data(start, 4 + length), label)
        if seen then complain(item, "The second one in a message") end
        if not relay then item:add_proto_expert_info(misplaced) end
        seen = true
        local names = suboption_list(item, data, at + 4, length - 4, false)
        if relay and #names > 0 then pinfo.cols.info:append("; DMM: " .. table.concat(names, ", ")) end
    end)
end

-- The D flags of a Mobility Header (RFC 8885 sections 4.1 and 4.2).
local function mobility_header(data, pinfo, tree)
    if data:len() < 12 then return end
    local kind = data(2, 1):uint()
    if kind == 5 then
        tree:add(dmm, data(8, 2)):add(field.pbu, data(8, 2))
        if data(9, 1):bitfield(3) == 1 then pinfo.cols.info:append("; DMM") end
    elseif kind == 6 then
        tree:add(dmm, data(7, 1)):add(field.pba, data(7, 1))
        if data(7, 1):bitfield(6) == 1 then pinfo.cols.info:append("; DMM: status " .. data(6, 1):uint()) end
    end
end

local dhcpv6_messages = Field.new("dhcpv6")
local mobility_headers = Field.new("mipv6")

function dmm.dissector(_, pinfo, tree)
    for _, found in ipairs({ dhcpv6_messages() }) do message(found.range, pinfo, tree) end
    for _, found in ipairs({ mobility_headers() }) do mobility_header(found.range, pinfo, tree) end
end

register_postdissector(dmm)

-- RFC 8885's mobility options, by the number that IANA has given (sections 4.3 to 4.8): name, sizes, content.
local function prefix_option(tree, data, at) return add_prefix(tree, data, at + 1, at + 2) end
local OPTIONS = {
    [65] = { "Anchored Prefix", { 18, 18, prefix_option } },
    [66] = { "Local Prefix", { 18, 18, prefix_option } },
    [67] = { "Previous MAAR", { 34, 34, function(tree, data, at)
        local endpoint = add_address(tree, "previous", data, at + 2)
        return string.format("%s at %s", add_prefix(tree, data, at + 1, at + 18), endpoint)
    end } },
    [68] = { "Serving MAAR", { 16, 16, function(tree, data, at) return add_address(tree, "serving", data, at) end } },
    [69] = { "DLIF Link-Local Address", { 16, 16, NESTED[6][3] } },
    [70] = { "DLIF Link-Layer Address", { 3, 255, function(tree, data, at, size)
        return add_link_layer(tree, data, at + 2, size - 2)
    end } },
}
local IDENTIFIER = 8
local IDENTIFIER_OPTION = { 1, 255, function(tree, data, at, size)
    if size > 1 then return add_identity(tree, data, at, size) end
    tree:add(field.subtype, data(at, 1))
    return "none" -- which a PBU may say so (RFC 5213 section 5.3.6)
end }
local mip6_option = DissectorTable.get("mip6.option")
local builtin_identifier = mip6_option:get_dissector(IDENTIFIER)

for number = 65, 70 do
    local what = string.format("Type of the mobility option %s (RFC 8885: %d)", OPTIONS[number][1], number)
    dmm.prefs["option" .. number] = Pref.uint("Option " .. OPTIONS[number][1], number, what)
end

local mip6_vendor = DissectorTable.get("mip6.vsm")
local enterprise -- as it is registered now, and so are
local numbers = {} -- number on the wire to IANA's
local function register()
    if enterprise then mip6_vendor:remove(enterprise, vendor_proto) end
    enterprise = dmm.prefs.enterprise
    mip6_vendor:add(enterprise, vendor_proto)
    for number in pairs(numbers) do mip6_option:remove(number, option_proto) end
    numbers = {}
    for number in pairs(OPTIONS) do
        local now = dmm.prefs["option" .. number]
        numbers[now] = number
        mip6_option:add(now, option_proto)
    end
end

function option_proto.dissector(tvb, pinfo, tree)
    local number = tvb(0, 1):uint()
    local name, kind
    if number == IDENTIFIER then
        -- Wireshark 4.0 shows a NAI and no other identifier. (After "Reload Lua Plugins" its own is gone.)
        if builtin_identifier and tvb:len() > 3 and tvb(2, 1):uint() == 1 then
            return builtin_identifier:call(tvb, pinfo, tree)
        end
        name, kind = "Mobile Node Identifier", IDENTIFIER_OPTION
    else
        name, kind = table.unpack(OPTIONS[numbers[number]])
    end
    local item = tree:add(dmm, tvb(), "MIPv6 Option - " .. name)
    item:add(field.option, tvb(0, 1))
    item:add(field.option_length, tvb(1, 1))
    content(item, kind, tvb(), 2, tvb:len() - 2)
    return tvb:len()
end

-- A sub-option in a Vendor Specific option of our enterprise number: code (1), then its content.
function vendor_proto.dissector(tvb, _, tree)
    if tvb:len() == 0 then
        complain(tree, "A Vendor Specific option without a sub-type")
        return 0
    end
    local code = tvb(0, 1):uint()
    local item = tree:add(dmm, tvb(), suboption_name(SUBOPTIONS, code))
    item:add(field.suboption, tvb(0, 1))
    content(item, SUBOPTIONS[code], tvb(), 1, tvb:len() - 1)
    return tvb:len()
end

mip6_option:add(IDENTIFIER, option_proto)
register()
dmm.prefs_changed = register
